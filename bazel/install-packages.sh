#!/usr/bin/env bash
# Installs the Debian packages of the named groups that are missing. Silent and quick when none is.
#
#   bazel/install-packages.sh GROUP...
#
# The groups and packages are in debian-packages.txt. What is done is told on stderr. Exit status: 0 when all packages
# are there in the end, 1 when one is not, 2 for a wrong call.
set -euo pipefail

list="$(dirname "${BASH_SOURCE[0]}")/debian-packages.txt"
packages=()
missing=()

say() { printf 'hakmem: %s\n' "$*" >&2; }

read_packages() {
  local wanted=" $* " group package rest
  while read -r group package rest; do
    if [[ -n $group && $group != '#'* && $wanted == *" $group "* ]]; then
      packages+=("$package")
    fi
  done <"$list"
}

find_missing() {
  local installed package
  # dpkg-query fails when it does not know one of them; its answer on the others counts all the same.
  installed=$(dpkg-query --show --showformat='${Package} ${db:Status-Status}\n' "${packages[@]}" 2>/dev/null || true)
  missing=()
  for package in "${packages[@]}"; do
    if [[ $'\n'$installed$'\n' != *$'\n'"$package installed"$'\n'* ]]; then
      missing+=("$package")
    fi
  done
}

apt_get() {
  local -a command=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 --quiet --yes "$@")
  if ((EUID != 0)); then
    command=(sudo "${command[@]}")
  fi
  say "running: ${command[*]}"
  "${command[@]}" </dev/null >&2
}

install_missing() {
  if ! command -v apt-get >/dev/null; then
    say 'there is no apt-get here'
  elif ((EUID != 0)) && ! command -v sudo >/dev/null; then
    say 'installing needs root, and there is no sudo here'
  else
    apt_get update || say 'apt-get update failed; going on with the package lists that are there'
    # A package that would drive out an installed one is the user's decision, not ours.
    apt_get install --no-install-recommends --no-remove "${missing[@]}" || true
  fi
}

if (($# == 0)); then
  say "usage: ${BASH_SOURCE[0]} GROUP..."
  exit 2
fi
read_packages "$@"
if ((${#packages[@]} == 0)); then
  say "no such group in $list: $*"
  exit 2
fi
find_missing
if ((${#missing[@]} == 0)); then
  exit 0
fi
say "these Debian packages are missing: ${missing[*]}"
install_missing
find_missing
if ((${#missing[@]} > 0)); then
  say "please install: apt-get install ${missing[*]}"
  exit 1
fi
