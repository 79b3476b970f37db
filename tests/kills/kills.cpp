// Kills trainings while they save, many times, and looks at what is left after each.
//   halftone_kills PROGRAM [KILLS [SEED]]
// Half of the kills come at random moments, half at the n-th system call of a save, for every n in turn (by ptrace).
// After each kill: what was there before is still there and whole, no training went back, `eval` takes the model and
// the best one, a training goes on from the state and ends with status 0, and no temporary file is left. In the end the
// files are, bit for bit, those of a training that nobody killed.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "halftone/io/safetensors.hpp"
#include "tests/cli/small_mnist.hpp"
#include "tests/io/temporary_folder.hpp"

namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

constexpr std::int64_t batches_an_epoch = 2;

[[noreturn]] void lost(const std::string& what) {
  fmt::print("LOST: {}\n", what);
  std::fflush(stdout);
  std::_Exit(1);  // the folder stays, to be looked at
}

pid_t start(const std::string& program, Words words, const fs::path& output, bool traced = false) {
  words.insert(words.begin(), program);
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  const int file = ::open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  ::dup2(file, STDOUT_FILENO), ::dup2(file, STDERR_FILENO);
  if (traced && (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0 || ::raise(SIGSTOP) != 0)) ::_exit(126);
  ::execv(arguments[0], arguments.data());
  ::_exit(127);
}

int wait_for(pid_t pid) {
  int status = 0;
  ::waitpid(pid, &status, 0);
  return status;
}

std::string content_of(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

/// Whether a process that stands before a system call is about to create a file below `folder`.
bool creates_below(pid_t pid, const __ptrace_syscall_info& info, const std::string& folder) {
  if (info.entry.nr != SYS_openat || (info.entry.args[2] & O_CREAT) == 0) return false;
  std::string path(folder.size(), '\0');
  const int memory = ::open(fmt::format("/proc/{}/mem", pid).c_str(), O_RDONLY);
  const auto got = ::pread(memory, path.data(), path.size(), static_cast<off_t>(info.entry.args[1]));
  ::close(memory);
  return got == static_cast<ssize_t>(path.size()) && path == folder;
}

/// Kills a traced process at its n-th stop at a system call, counted from the first file that it creates below
/// `folder`. False where it ended before.
bool kill_at_call(pid_t pid, std::int64_t n, const std::string& folder) {
  if (!WIFSTOPPED(wait_for(pid)) || ::ptrace(PTRACE_SETOPTIONS, pid, nullptr, PTRACE_O_TRACESYSGOOD) != 0)
    lost("ptrace does not work here");
  bool saving = false;
  int signal = 0;
  for (;;) {
    ::ptrace(PTRACE_SYSCALL, pid, nullptr, signal);
    const int status = wait_for(pid);
    if (!WIFSTOPPED(status)) return false;
    const bool at_call = WSTOPSIG(status) == (SIGTRAP | 0x80);
    signal = at_call || WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
    __ptrace_syscall_info info{};
    if (!at_call || ::ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info) <= 0 ||
        info.op != PTRACE_SYSCALL_INFO_ENTRY)
      continue;
    saving = saving || creates_below(pid, info, folder);
    if (!saving || n-- > 0) continue;
    ::kill(pid, SIGKILL);
    wait_for(pid);
    return true;
  }
}

class Kills {
 public:
  Kills(std::string program, unsigned seed) : program_(std::move(program)), random_(seed) {
    halftone::testing::write_small_mnist(folder_ / "");
    const auto began = std::chrono::steady_clock::now();
    wait_for(start(program_, train(2), folder_ / "log"));
    usual_ = std::chrono::steady_clock::now() - began;
    fs::remove_all(out_);
  }

  void run(int kills) {
    for (int i = 0; i < kills; ++i) {
      const bool first = i % 4 < 2;  // the first checkpoint of a folder
      if (first) fs::remove_all(out_);
      const std::int64_t before = steps();
      i % 2 == 0 ? kill_at_random(before) : kill_at_next_call(before, first ? next_first_ : next_);
      look(before);
      go_on();
    }
    compare();
    fmt::print(
        "{} kills: {} at random moments, {} at system calls of a save (the first {} of a first one, {} of a later "
        "one); {} left temporary files, which the next save removed; nothing was lost\n",
        kills, at_random_, at_calls_, most_first_, most_, leftovers_);
  }

 private:
  Words train(std::int64_t epochs) const {
    Words words = {"train",
                   "--net",
                   "lenet5",
                   "--data",
                   "mnist",
                   "--data-dir",
                   (folder_ / "").string(),
                   "--batch",
                   "32",
                   "--lr",
                   "0.02",
                   "--threads",
                   "1",
                   "--keep-best",
                   "--epochs",
                   std::to_string(epochs),
                   "--out",
                   out_.string()};
    if (fs::exists(state_)) words.insert(words.end(), {"--resume", out_.string()});
    return words;
  }

  std::int64_t steps() const {
    return fs::exists(state_) ? std::stoll(halftone::read_safetensors(state_).metadata.at("state.attempts")) : 0;
  }

  void kill_at_random(std::int64_t before) {
    for (;;) {  // until it comes before the end
      const auto moment = usual_ * std::uniform_real_distribution<>(0, 1.1)(random_);
      const pid_t pid = start(program_, train(before / batches_an_epoch + 2), folder_ / "log");
      std::this_thread::sleep_for(moment);
      ::kill(pid, SIGKILL);
      if (WIFSIGNALED(wait_for(pid))) break;
      before = steps();
    }
    ++at_random_;
  }

  void kill_at_next_call(std::int64_t before, std::int64_t& n) {
    while (!kill_at_call(start(program_, train(before / batches_an_epoch + 1), folder_ / "log", true), n++,
                         out_.string() + "/")) {
      std::int64_t& most = &n == &next_ ? most_ : most_first_;
      most = std::max(most, n - 1);
      if (n == 1) lost("a training does not save: " + content_of(folder_ / "log"));
      n = 0;
      before = steps();
      if (&n == &next_first_) fs::remove_all(out_), before = 0;
    }
    std::int64_t& most = &n == &next_ ? most_ : most_first_;
    most = std::max(most, n);
    ++at_calls_;
  }

  void expect_success(const Words& words, const char* what) {
    const int status = wait_for(start(program_, words, folder_ / "log"));
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
      lost(fmt::format("{} after a kill: {}", what, content_of(folder_ / "log")));
  }

  /// What the killed one left. A model may be missing only as long as there never was one.
  void look(std::int64_t before) {
    for (const auto& entry : fs::recursive_directory_iterator(fs::exists(out_) ? out_ : folder_ / ""))
      leftovers_ += entry.path().filename().string().find(".partial-") != std::string::npos;
    if (steps() < before) lost(fmt::format("the state went from step {} to {}", before, steps()));
    if (before > 0 && !(fs::exists(model_) && fs::exists(best_))) lost("a model that was there");
    for (const fs::path& model : {model_, best_})
      if (fs::exists(model))
        expect_success({"eval", "--checkpoint", model.parent_path().string(), "--data-dir", (folder_ / "").string(),
                        "--threads", "1"},
                       "eval");
  }

  void go_on() {
    const std::int64_t epochs = steps() / batches_an_epoch + 1;
    expect_success(train(epochs), "a training that goes on");
    if (steps() != epochs * batches_an_epoch) lost("the steps of a training that went on");
    std::int64_t files = 0;
    for (const auto& entry : fs::recursive_directory_iterator(out_)) files += entry.is_regular_file();
    if (files != 3) lost(fmt::format("order: {} files in {}", files, out_.string()));
    epochs_ = epochs;
  }

  void compare() {
    const std::string state = content_of(state_), model = content_of(model_), best = content_of(best_);
    fs::remove_all(out_);
    expect_success(train(epochs_), "a training that nobody killed");
    if (state != content_of(state_) || model != content_of(model_) || best != content_of(best_)) lost("bits");
  }

  halftone::TemporaryFolder folder_;
  std::string program_;
  std::mt19937 random_;
  const fs::path out_ = folder_ / "out", state_ = out_ / "state.safetensors", model_ = out_ / "model.safetensors",
                 best_ = out_ / "best" / "model.safetensors";
  std::chrono::duration<double> usual_{};
  std::int64_t next_ = 0, next_first_ = 0, most_ = 0, most_first_ = 0;
  std::int64_t at_random_ = 0, at_calls_ = 0, leftovers_ = 0, epochs_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: halftone_kills PROGRAM [KILLS [SEED]]\n");
    return 2;
  }
  Kills(argv[1], argc > 3 ? static_cast<unsigned>(std::atoi(argv[3])) : 1).run(argc > 2 ? std::atoi(argv[2]) : 300);
}
