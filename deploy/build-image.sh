#!/usr/bin/env bash
# Build the image of the Dockerfile without a Docker daemon, on Debian as root, and tag it weighbridge:test.
#
# The base image is made from Debian packages, so no registry is needed. With Docker, use `docker build -t weighbridge .`
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(buildah podman runc mmdebstrap)
if ! dpkg -s "${packages[@]}" >/dev/null 2>&1; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}" >/dev/null
fi

# Images are stored in var/, apart from those of the machine.
store="$PWD/var/images"
mkdir -p "$store"
cat >"$store/storage.conf" <<CONF
[storage]
driver = "overlay"
graphroot = "$store/root"
runroot = "$store/run"
CONF
export CONTAINERS_STORAGE_CONF="$store/storage.conf"

base=localhost/python:3.13-slim
if ! buildah inspect --type image "$base" >/dev/null 2>&1; then
    # Debian 13 has Python 3.13. A venv in /usr/local behaves like the official image.
    mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates,tzdata,netbase \
        --customize-hook='chroot "$1" python3 -m venv /usr/local' trixie "$store/base.tar"
    podman import -q --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin' "$store/base.tar" "$base"
    rm "$store/base.tar"
fi

# The certificates of this machine, for an index that a proxy signs.
certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
git ls-files -z | tar -c --null -T - | (rm -rf "$store/context" && mkdir "$store/context" && tar -x -C "$store/context")
buildah build --layers --pull-never --isolation=chroot --network=host --ulimit nofile=1024:1024 --from "$base" \
    -v "$certificates:/etc/ssl/certs/ca-certificates.crt:ro" -t weighbridge:test "$store/context"
