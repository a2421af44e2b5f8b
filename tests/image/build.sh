#!/usr/bin/env bash
# build.sh WORK: both targets of the Dockerfile as WORK/service.tar and WORK/snakemake.tar, without a registry.
# The base is a Debian made here: buildah builds on it in a chroot. As root; needs mmdebstrap, buildah and the network.
set -euo pipefail
work=$(realpath "$1")
cd "$(dirname "$0")/../.."

# Where overlayfs can't be mounted here, whole copies do as well, only slower.
driver=overlay
mkdir -p "$work"/{lower,upper,inner,merged}
if mount -t overlay overlay -o "lowerdir=$work/lower,upperdir=$work/upper,workdir=$work/inner" "$work/merged" 2>/dev/null; then
  umount "$work/merged"
else
  driver=vfs
fi
b() { buildah --storage-driver "$driver" --root "$work/images" --runroot "$work/run" "$@"; }
leave() {
  b rm --all >/dev/null 2>&1 || true
  umount "$work"/images/overlay/*/merged "$work/images/overlay" 2>/dev/null || true
}
trap leave EXIT

step() { echo "build.sh: $SECONDS s: $*"; }

step "a Debian as the base"
mmdebstrap --quiet --variant=apt --include=python3-venv,ca-certificates,tini \
  --aptopt='Acquire::Languages "none"' --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*' \
  bookworm "$work/base.tar"
container=$(b from scratch)
b add --quiet "$container" "$work/base.tar" / >/dev/null
b commit --quiet --rm "$container" localhost/snakeline-base >/dev/null
rm "$work/base.tar"
touch "$work/base.made"

# What this machine trusts, for the build alone: a proxy may stand before the package index.
certificates=/etc/ssl/certs/ca-certificates.crt
options=(--isolation chroot --format docker --pull-never --layers --build-arg BASE=localhost/snakeline-base)
[[ -f $certificates ]] && options+=(--volume "$certificates:$certificates:ro")
for name in PIP_INDEX_URL PIP_TRUSTED_HOST; do
  [[ -n ${!name:-} ]] && options+=(--build-arg "$name=${!name}")
done
options+=(--build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)")
options+=(--build-arg "CREATED=$(date --utc --iso-8601=seconds)")
for target in service snakemake; do
  step "the target $target"
  b bud "${options[@]}" --target "$target" --tag "localhost/snakeline:$target" .
  b push --quiet "localhost/snakeline:$target" "docker-archive:$work/$target.tar:snakeline:$target"
done
step "done"
