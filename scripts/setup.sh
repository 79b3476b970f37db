# Sourced by examples/quickstart.sh and tests/run.sh: what a build needs, and the build. Sets `root` and `build`.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${HALFTONE_BUILD_DIR:-$root/build}

# need_packages PACKAGE...: installs those that a Debian or Ubuntu lacks; touches no network when nothing is missing.
# Elsewhere it does nothing, and CMake says what it does not find.
need_packages() {
  command -v dpkg-query >/dev/null && command -v apt-get >/dev/null || return 0
  local missing=() package as_root=()
  for package in "$@"; do
    dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  # Tools may come from anywhere.
  command -v cmake >/dev/null || missing+=(cmake)
  command -v c++ >/dev/null || missing+=(g++)
  command -v ninja >/dev/null || command -v make >/dev/null || missing+=(ninja-build)
  [ ${#missing[@]} -gt 0 ] || return 0

  if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
      echo "Missing packages, and neither root nor sudo to install them: apt-get install ${missing[*]}" >&2
      return 1
    fi
    as_root=(sudo)
  fi
  echo "Installing ${missing[*]}"
  "${as_root[@]}" apt-get update -qq &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

library_packages=(libhwy-dev libfmt-dev zlib1g-dev libcli11-dev nlohmann-json3-dev libcurl4-openssl-dev ca-certificates
  libpng-dev libjpeg-dev libeigen3-dev pkg-config)
optional_packages=(libonnx-dev libprotobuf-dev)
test_packages=(libgtest-dev libbenchmark-dev)

# build_with CMAKE-OPTION...: an optimised build in $build.
build_with() {
  local generator=()
  if [ ! -f "$build/CMakeCache.txt" ] && command -v ninja >/dev/null; then generator=(-G Ninja); fi
  cmake -S "$root" -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release "$@" >"$build.log" 2>&1 || {
    cat "$build.log" >&2
    return 1
  }
  rm -f "$build.log"
  cmake --build "$build" --parallel "$(nproc)"
}
