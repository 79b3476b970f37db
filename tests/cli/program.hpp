#pragma once
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace halftone {

/// A folder of its own that goes away at the end.
class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "halftone-cli-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

inline std::string text_of(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline nlohmann::json json_of(const std::string& file) { return nlohmann::json::parse(text_of(file)); }

/// The program `halftone`, started with these words.
class Program {
 public:
  explicit Program(std::vector<std::string> words) {
    words.insert(words.begin(), HALFTONE_PROGRAM);
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ != 0) return;
    std::signal(SIGINT, SIG_DFL);  // whoever started the tests in the background may have it ignored
    send(STDOUT_FILENO, folder_ / "out");
    send(STDERR_FILENO, folder_ / "err");
    ::execv(arguments[0], arguments.data());
    ::_exit(127);
  }
  ~Program() { wait(); }

  pid_t id() const { return pid_; }
  std::string out() const { return text_of(folder_ / "out"); }
  std::string err() const { return text_of(folder_ / "err"); }

  /// The exit status; a signal's number is negative.
  int wait() {
    if (!done_ && pid_ > 0) {
      int status = 0;
      ::waitpid(pid_, &status, 0);
      status_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
      done_ = true;
    }
    return status_;
  }

 private:
  static void send(int descriptor, const std::string& file) {
    ::dup2(::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), descriptor);
  }

  Folder folder_;
  pid_t pid_ = -1;
  bool done_ = false;
  int status_ = -1;
};

}  // namespace halftone
