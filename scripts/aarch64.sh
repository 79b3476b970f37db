#!/usr/bin/env bash
# Builds for AArch64 on another Debian or Ubuntu and runs the fast tests there under qemu-user; further arguments go to ctest.
#   scripts/aarch64.sh [--no-install] [-R Conv2d]...     status 77 where, with --no-install, something is missing
# The libraries lie in build-aarch64/sysroot, apt's data on them too: the machine's own packages get a compiler and an
# emulator, no second architecture. Mirrors: $DEBIAN_MIRROR, $UBUNTU_PORTS_MIRROR.
set -euo pipefail
source "$(dirname "$0")/setup.sh"
build=$root/build-aarch64
sysroot=$build/sysroot
tools=(g++-aarch64-linux-gnu qemu-user-static ninja-build)

# make_sysroot: fetches the libraries and all that they need for arm64, and unpacks them.
make_sysroot() {
  local apt=$sysroot/apt source file link options
  source=$(
    source /etc/os-release
    case $ID in
      debian) echo "${DEBIAN_MIRROR:-http://deb.debian.org/debian} $VERSION_CODENAME main" ;;
      ubuntu) echo "${UBUNTU_PORTS_MIRROR:-http://ports.ubuntu.com/ubuntu-ports} $VERSION_CODENAME main universe" ;;
      *) echo "aarch64.sh: this is neither Debian nor Ubuntu" >&2; exit 1 ;;
    esac
  )
  rm -rf "$sysroot"
  mkdir -p "$apt/lists/partial" "$apt/archives/partial"
  echo "deb $source" >"$apt/sources.list"
  : >"$apt/status"
  options=(-qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User="$(id -un)"
    -o Dir::State="$apt" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt"
    -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=-)
  echo "Fetching arm64 libraries: $source"
  apt-get "${options[@]}" update
  options+=(--download-only --no-install-recommends -y install "${library_packages[@]}" "${test_packages[@]}")
  apt-get "${options[@]}" "${optional_packages[@]}" >/dev/null || apt-get "${options[@]}" >/dev/null
  for file in "$apt"/archives/*.deb; do dpkg-deb -x "$file" "$sysroot"; done
  find "$sysroot" -type l -lname '/*' | while read -r link; do ln -sfn "$sysroot$(readlink "$link")" "$link"; done
  rm -r "$apt"
  touch "$sysroot/complete"
}

if [ "${1:-}" = --no-install ]; then
  shift
  for tool in aarch64-linux-gnu-g++ qemu-aarch64-static ninja; do
    command -v "$tool" >/dev/null || { echo "skipped: $tool is missing: apt-get install ${tools[*]}"; exit 77; }
  done
  [ -f "$sysroot/complete" ] || { echo "skipped: no arm64 libraries in $sysroot: scripts/aarch64.sh fetches them"; exit 77; }
else
  need_packages "${tools[@]}"
  [ -f "$sysroot/complete" ] || make_sysroot
fi

build_with -DCMAKE_TOOLCHAIN_FILE="$root/cmake/aarch64.cmake" -DCMAKE_SYSROOT="$sysroot" -DHALFTONE_WITH_CUDA=OFF
exec ctest --test-dir "$build" -LE 'slow|gpu' --parallel "$(nproc)" --output-on-failure "$@"
