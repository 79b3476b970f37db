#include "halftone/data/fetch.hpp"

#include <fmt/format.h>

#include <exception>
#include <memory>
#include <optional>
#include <span>

#include "halftone/tensor/error.hpp"
#include "halftone/tensor/text.hpp"
#include "src/data/archive.hpp"
#include "src/data/places.hpp"

#ifdef HALFTONE_HAS_CURL
#include <curl/curl.h>
#endif

namespace halftone {
namespace fs = std::filesystem;

namespace {

struct Remote {
  std::string_view name, base_url;
  std::vector<KnownFile> files;
  std::string_view archive = {};  // a .tar.gz that holds the files, or none
  std::string_view folder = {};   // where the files lie in the archive and in the data folder
};

std::span<const Remote> remotes() {
  static const Remote all[] = {
      {"mnist",
       "https://ossci-datasets.s3.amazonaws.com/mnist",
       {{"train-images-idx3-ubyte.gz", 9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"},
        {"train-labels-idx1-ubyte.gz", 28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"},
        {"t10k-images-idx3-ubyte.gz", 1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"},
        {"t10k-labels-idx1-ubyte.gz", 4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"}}},
      {"fashion-mnist",
       "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
       {{"train-images-idx3-ubyte.gz", 26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"},
        {"train-labels-idx1-ubyte.gz", 29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"},
        {"t10k-images-idx3-ubyte.gz", 4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"},
        {"t10k-labels-idx1-ubyte.gz", 5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"}}},
      {"cifar10",
       "https://www.cs.toronto.edu/~kriz",
       {{"data_batch_1.bin", 30730000, "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"},
        {"data_batch_2.bin", 30730000, "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"},
        {"data_batch_3.bin", 30730000, "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"},
        {"data_batch_4.bin", 30730000, "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"},
        {"data_batch_5.bin", 30730000, "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"},
        {"test_batch.bin", 30730000, "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"}},
       "cifar-10-binary.tar.gz",
       "cifar-10-batches-bin"}};
  return all;
}

const Remote& remote(std::string_view name) {
  for (const Remote& r : remotes())
    if (r.name == name) return r;
  fail(fmt::format("data set '{}' cannot be fetched; there are {}", name, listed(fetchable_names(), " and ")));
}

/// A download's file, begun with its first bytes; so are its folders.
struct Download {
  fs::path target;
  std::optional<PartialFile> file = {};

  void append(std::span<const std::byte> bytes) {
    if (!file) {
      make_folder(target.parent_path());
      file.emplace(target);
    }
    file->append(bytes);
  }
};

#ifdef HALFTONE_HAS_CURL

/// What one download carries through libcurl's callback, where no exception may pass.
struct Transfer {
  Download& out;
  std::int64_t largest;
  std::string_view file;
  const FetchOptions& options;
  std::int64_t bytes = 0;
  std::exception_ptr error = {};

  void take(std::span<const char> received) {
    bytes += static_cast<std::int64_t>(received.size());
    if (bytes > largest) throw FileError(fmt::format("{} is larger than it should be", file));
    out.append(std::as_bytes(received));
  }

  bool succeeds(const std::function<void()>& act) {
    try {
      act();
      return true;
    } catch (...) {
      error = std::current_exception();
      return false;
    }
  }
};

std::size_t on_bytes(char* bytes, std::size_t, std::size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  return transfer.succeeds([&] { transfer.take({bytes, count}); }) ? count : 0;
}

/// About once a second also where nothing comes.
int on_progress(void* user, curl_off_t total, curl_off_t, curl_off_t, curl_off_t) {
  auto& transfer = *static_cast<Transfer*>(user);
  const auto& progress = transfer.options.progress;
  return !progress || transfer.succeeds([&] { progress(transfer.file, transfer.bytes, total); }) ? 0 : 1;
}

void download(const std::string& base_url, std::string_view file, std::int64_t largest, Download& out,
              const FetchOptions& options) {
  const std::string url = fmt::format("{}/{}", base_url, file);
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl(curl_easy_init(), curl_easy_cleanup);
  if (!curl) throw Failure("libcurl cannot be started");
  Transfer transfer{out, largest, file, options};
  curl_easy_setopt(curl.get(), CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_FAILONERROR, 1l);
  curl_easy_setopt(curl.get(), CURLOPT_FOLLOWLOCATION, 1l);
  curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1l);
  curl_easy_setopt(curl.get(), CURLOPT_CONNECTTIMEOUT, 10l);
  curl_easy_setopt(curl.get(), CURLOPT_LOW_SPEED_LIMIT, 100l);
  curl_easy_setopt(curl.get(), CURLOPT_LOW_SPEED_TIME, 30l);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, on_bytes);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(curl.get(), CURLOPT_NOPROGRESS, 0l);
  curl_easy_setopt(curl.get(), CURLOPT_XFERINFOFUNCTION, on_progress);
  curl_easy_setopt(curl.get(), CURLOPT_XFERINFODATA, &transfer);
  const CURLcode code = curl_easy_perform(curl.get());
  if (transfer.error) std::rethrow_exception(transfer.error);
  if (code != CURLE_OK) throw Failure(fmt::format("{} cannot be downloaded: {}", url, curl_easy_strerror(code)));
  if (!out.file) throw Failure(fmt::format("{} cannot be downloaded: it is empty", url));
}

#else

void download(const std::string& base_url, std::string_view file, std::int64_t, Download&, const FetchOptions&) {
  fail(fmt::format("halftone was built without libcurl and cannot download {}/{}", base_url, file));
}

#endif

void fetch_archive(const Remote& from, const std::string& base_url, const fs::path& dir, const fs::path& files,
                   const FetchOptions& options) {
  constexpr std::int64_t largest = std::int64_t{1} << 29;
  Download archive{dir / from.archive};
  download(base_url, from.archive, largest, archive, options);
  unpack(archive.file->path(), from.folder, from.files, files);
}

}  // namespace

bool can_fetch() {
#ifdef HALFTONE_HAS_CURL
  return true;
#else
  return false;
#endif
}

std::vector<std::string_view> fetchable_names() {
  std::vector<std::string_view> names;
  for (const Remote& r : remotes()) names.push_back(r.name);
  return names;
}

fs::path fetch(std::string_view name, const fs::path& dir, const FetchOptions& options) {
  const Remote& from = remote(name);
  const std::string base_url = options.base_url.empty() ? std::string(from.base_url) : options.base_url;
  fs::path target = dir.empty() ? download_folder(name) : dir;
  const fs::path files = target / from.folder;
  for (const KnownFile& file : from.files) {
    if (is_intact(files / file.name, file)) continue;
    if (!from.archive.empty()) {
      fetch_archive(from, base_url, target, files, options);
      break;
    }
    Download out{files / file.name};
    download(base_url, file.name, file.bytes, out, options);
    publish(*out.file, file);
  }
  return target;
}

}  // namespace halftone
