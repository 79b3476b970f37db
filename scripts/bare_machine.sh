#!/usr/bin/env bash
# Runs both commands of README.md where nothing is installed: in a bare userland by debootstrap, as root and, in another
# one, as a user with sudo. Takes the last commit, a network and about an hour of a core; run before every release.
#   scripts/bare_machine.sh [debian|ubuntu]...      both by default; status 77 where none could be tried
# Needs root and debootstrap. The mirror is the one that apt uses here, or $DEBIAN_MIRROR, $UBUNTU_MIRROR.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
[ $# -gt 0 ] || set -- debian ubuntu

skip() { echo "skipped: $*"; }
if [ "$(id -u)" != 0 ]; then skip "this needs root, for debootstrap and chroot"; exit 77; fi
if ! command -v debootstrap >/dev/null; then skip "debootstrap is missing: apt-get install debootstrap"; exit 77; fi

work=$(mktemp -d)
clean_up() {
  local place
  for place in "$work"/*/proc; do
    if mountpoint -q "$place"; then umount -l "$place"; fi
  done
  rm -rf --one-file-system "$work"
}
trap clean_up EXIT

# mirror ORIGIN SUITE: where apt here gets that from, or else another suite of that origin.
mirror() {
  apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(REPO_URI)' | grep -v -e -security -e -updates |
    awk -v origin="$1" -v suite="$2" '$1 == origin && (at == "" || $2 == suite) { at = $3 } END { print at }'
}

# userland DISTRIBUTION: makes $work/DISTRIBUTION, bare but for sudo and certificates.
userland() {
  local suite at
  case $1 in
    debian) suite=bookworm at=${DEBIAN_MIRROR:-$(mirror Debian bookworm)} ;;
    ubuntu) suite=jammy at=${UBUNTU_MIRROR:-$(mirror Ubuntu jammy)} ;;
    *) echo "bare_machine.sh: $1: it is debian or ubuntu" >&2; exit 2 ;;
  esac
  if [ -z "$at" ]; then skip "$1: apt knows no mirror of it here"; return 1; fi
  local components=main
  [ "$1" = debian ] || components=main,universe
  echo "== A bare $1 $suite from $at"
  if ! debootstrap --variant=minbase --include=sudo --components="$components" "$suite" "$work/$1" "$at" >"$work/$1.log" 2>&1; then
    tail -3 "$work/$1.log"
    skip "$1: debootstrap could not make it"
    return 1
  fi
  cp -L /etc/resolv.conf "$work/$1/etc/resolv.conf"
}

# try DISTRIBUTION USER: both commands in a copy of the userland.
try() {
  local place=$work/$1-$2 home
  echo "== $1, as $2"
  cp -a "$work/$1" "$place"
  mount -t proc proc "$place/proc"
  if [ "$2" != root ]; then
    chroot "$place" useradd --create-home --shell /bin/bash "$2"
    echo "$2 ALL=(ALL) NOPASSWD: ALL" >"$place/etc/sudoers.d/$2"
  fi
  home=$(chroot "$place" getent passwd "$2" | cut -d: -f6)
  git clone --quiet --no-hardlinks "$root" "$place$home/halftone"
  chroot "$place" chown -R "$2": "$home/halftone"
  chroot "$place" su - "$2" -c 'cd halftone && examples/quickstart.sh && tests/run.sh'
  umount "$place/proc"
  rm -rf --one-file-system "$place"
}

tried=0
for distribution in "$@"; do
  userland "$distribution" || continue
  for user in root somebody; do try "$distribution" "$user"; done
  tried=1
done
if [ $tried = 0 ]; then exit 77; fi
echo "== Both commands work on a bare machine"
