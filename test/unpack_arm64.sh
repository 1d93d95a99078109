#!/bin/sh
# Unpack Debian's arm64 packages into a folder, beside what this machine has installed.
set -e
folder=$(realpath "$1")
packages='python3-minimal python3-numpy python3-opencv python3-psutil python3-jinja2 python3-tqdm
    python3-pytest python3-hypothesis'
keys=/usr/share/keyrings/debian-archive-keyring.gpg
for need in apt-get:apt dpkg:dpkg qemu-aarch64-static:qemu-user-static; do
    command -v "${need%:*}" > /dev/null || { echo "this needs: apt install ${need#*:}"; exit 1; }
done
[ -e $keys ] || { echo 'this needs: apt install debian-archive-keyring'; exit 1; }

mkdir -p "$folder/state/lists/partial" "$folder/cache/archives/partial" "$folder/root"
: > "$folder/state/status"
echo "deb [signed-by=$keys] http://deb.debian.org/debian bookworm main" > "$folder/sources.list"
apt() {
    apt-get --quiet --quiet -o APT::Architecture=arm64 -o APT::Architectures::=arm64 \
        -o Dir::Etc::SourceList="$folder/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State="$folder/state" -o Dir::State::Status="$folder/state/status" \
        -o Dir::Cache="$folder/cache" -o APT::Sandbox::User=root -o Debug::NoLocking=true "$@"
}
apt update
apt install --yes --download-only --no-install-recommends $packages
for package in "$folder"/cache/archives/*.deb; do
    dpkg -x "$package" "$folder/root"
done
rm -r "$folder/cache"
