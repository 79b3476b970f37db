// halftone_peer_events FOLDER: writes event files as two runs of a training would, the second from step 3 on.
#include <iostream>

#include "halftone/io/event_file.hpp"

namespace {

void write(const char* folder, std::int64_t first, std::int64_t last, float factor) {
  halftone::EventFile events(folder, first);
  for (std::int64_t step = first; step <= last; ++step) {
    const halftone::EventScalar scalars[] = {{"train/loss", factor * static_cast<float>(step)},
                                             {"train/learning_rate", 0x1p-20f}};
    events.add(step, scalars);
  }
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2) return 2;
  write(argv[1], 1, 300, 0.5f);
  write(argv[1], 3, 4, -1);
  return 0;
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
