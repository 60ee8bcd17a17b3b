# SPDX-License-Identifier: GPL-2.0
# Shared by the set-up scripts: the cache, progress and failure messages, package sources.
# Sourced, never run. A caller gets: $LARD_CACHE, $TOP, say, die, step, locked, need_packages,
# archive_sources, private_apt, newest_release, make_suite_tree, key_of.

set -euo pipefail
shopt -s inherit_errexit

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
LARD_CACHE=${LARD_CACHE:-${HOME:-/root}/.cache/lard}
LARD_LOGS=$LARD_CACHE/log
export LARD_CACHE DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
mkdir -p "$LARD_CACHE" "$LARD_LOGS"

# The suite everything is built in and run on, and the one its kernel comes from.
SUITE=trixie
KERNEL_SUITE=$SUITE-backports

say() { printf '[%4ds] %s\n' "$((SECONDS + ${LARD_T0:-0}))" "$*" >&2; }

# die MESSAGE [REMEDY]
die() {
	printf '\nlard: %s\n' "$1" >&2
	[ -z "${2:-}" ] || printf '  what to do: %s\n' "$2" >&2
	exit 1
}

# step NAME REMEDY COMMAND...: runs the command with its output in a log of that name; on
# failure shows the end of the log, its path, and the remedy.
step() {
	local name=$1 remedy=$2 log status=0
	shift 2
	log=$LARD_LOGS/${name//[^a-zA-Z0-9.-]/-}.log
	say "$name ..."
	# Not in a condition: bash would ignore `set -e` in everything that the step calls.
	set +e
	(
		set -e
		"$@"
	) >"$log" 2>&1 </dev/null
	status=$?
	set -e
	if [ $status -ne 0 ]; then
		printf '\n--- the end of %s\n' "$log" >&2
		tail -n 25 "$log" >&2
		die "the step '$name' failed; its log is $log" "$remedy"
	fi
}

# locked NAME COMMAND...: one process at a time a cache entry, so that parallel runs share work.
locked() {
	local name=$1
	shift
	(
		flock -n 9 || { say "waiting for another run that makes $name"; flock 9; }
		"$@"
	) 9>"$LARD_CACHE/$name.lock"
}

need_root() {
	[ "$(id -u)" = 0 ] || die "this step needs root (trees, mounts and network namespaces)" \
		"run the same command as root"
}

# need_packages PACKAGE...: installs the ones the machine lacks.
need_packages() {
	local missing=() package
	for package; do
		dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
			missing+=("$package")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	need_root
	locked host-packages install_packages "${missing[@]}"
}

install_packages() {
	step "refresh the package lists of this machine" "make 'apt-get update' work" \
		apt-get update
	step "install ${#*} packages on this machine" \
		"install by hand: apt-get install $*" \
		apt-get install -y --no-install-recommends "$@"
}

# The archive's address: LARD_MIRROR, else what this machine's own apt uses for Debian. The
# security archive is used when the machine has one (LARD_SECURITY_MIRROR overrides).
find_mirrors() {
	local targets
	[ -z "${MIRROR:-}" ] || return 0
	targets=$(apt-get indextargets --format '$(REPO_URI)|$(LABEL)' 'Created-By: Packages' \
		2>/dev/null || true)
	MIRROR=${LARD_MIRROR:-$(sed -n 's/|Debian$//p; /\/debian\/\?|/s/|.*//p' <<<"$targets" | head -n 1)}
	SECURITY=${LARD_SECURITY_MIRROR:-$(sed -n 's/|Debian-Security$//p; /debian-security\/\?|/s/|.*//p' \
		<<<"$targets" | head -n 1)}
	[ -n "$MIRROR" ] || die "no Debian archive in this machine's apt configuration" \
		"set LARD_MIRROR to the address of a Debian archive"
}

# archive_sources: apt sources of the trees, on standard output.
archive_sources() {
	local keys=/usr/share/keyrings/debian-archive-keyring.gpg suite
	find_mirrors
	[ -e "$keys" ] || die "no $keys" "apt-get install debian-archive-keyring"
	for suite in "$SUITE" "$KERNEL_SUITE"; do
		echo "deb [signed-by=$keys] $MIRROR $suite main"
	done
	[ -z "$SECURITY" ] || echo "deb [signed-by=$keys] $SECURITY $SUITE-security main"
}

# An apt of our own beside the machine's: same archive, the trees' suites.
APT_DIR=$LARD_CACHE/apt
private_apt() {
	local tool=$1
	shift
	"$tool" -q \
		-o Dir::Etc::sourcelist="$APT_DIR/sources.list" -o Dir::Etc::sourceparts=- \
		-o Dir::State="$APT_DIR" -o Dir::State::lists="$APT_DIR/lists" \
		-o Dir::State::status="$APT_DIR/status" -o Dir::Cache="$APT_DIR/cache" \
		-o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Retries=3 \
		-o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
		-o APT::Update::Post-Invoke=true -o APT::Update::Post-Invoke-Success=true "$@"
}

refresh_index() {
	# A stale list is good for a day; LARD_REFRESH=1 asks for a new one at once.
	if [ -e "$APT_DIR/fresh" ] && [ -z "${LARD_REFRESH:-}" ] &&
		[ -n "$(find "$APT_DIR/fresh" -mmin -1440)" ]; then
		return 0
	fi
	mkdir -p "$APT_DIR/lists/partial" "$APT_DIR/cache/archives/partial"
	: >"$APT_DIR/status"
	archive_sources >"$APT_DIR/sources.list"
	if ! (step "read the package index of $SUITE and $KERNEL_SUITE" \
		"check the archive in $APT_DIR/sources.list, or set LARD_MIRROR" \
		private_apt apt-get update); then
		[ -e "$APT_DIR/fresh" ] || exit 1
		say "going on with the package index read before"
		return 0
	fi
	touch "$APT_DIR/fresh"
}

# newest_release: the newest 7.x release of the cloud flavour that has image, headers and source.
newest_release() {
	local release versions
	if [ -n "${LARD_RELEASE:-}" ]; then
		echo "$LARD_RELEASE"
		return
	fi
	locked apt refresh_index
	# One answer for each reading of the index.
	if [ "$APT_DIR/release" -nt "$APT_DIR/fresh" ]; then
		cat "$APT_DIR/release"
		return
	fi
	versions=$(private_apt apt-cache search --names-only '^linux-headers-7[0-9.]*.*-cloud-amd64$' |
		sed 's/^linux-headers-\([^ ]*\) .*/\1/' | sort -rV)
	for release in $versions; do
		# One at a time: of several names it is enough for apt-cache if one is known.
		if private_apt apt-cache show "linux-image-$release" >/dev/null 2>&1 &&
			private_apt apt-cache show "linux-source-$(series_of "$release")" >/dev/null 2>&1; then
			echo "$release" | tee "$APT_DIR/release"
			return
		fi
	done
	die "no 7.x kernel with headers and source in $KERNEL_SUITE" \
		"set LARD_RELEASE to a kernel release that the archive has"
}

# series_of 7.3.4+deb13-cloud-amd64 -> 7.3
series_of() { sed 's/^\([0-9]*\.[0-9]*\).*/\1/' <<<"$1"; }

# key_of WORDS...: a short name for content.
key_of() { printf '%s\n' "$@" | sha256sum | cut -c 1-12; }

# make_suite_tree DIRECTORY WHAT PACKAGE...: a tree of the suite with these packages and what they
# depend on. Called under a lock.
make_suite_tree() {
	local tree=$1 what=$2 packages
	shift 2
	[ ! -e "$tree/.complete" ] || return 0
	need_root
	need_packages mmdebstrap debian-archive-keyring
	packages=$(IFS=,; echo "$*")
	rm -rf --one-file-system "$tree.new"
	archive_sources >"$tree.list"
	step "make the $SUITE tree $what" \
		"check the archive in $tree.list, or set LARD_MIRROR; then run it again" \
		mmdebstrap --variant=essential --mode=root --format=directory \
		--aptopt='Acquire::Languages "none"' --aptopt='Acquire::Retries "3"' \
		--dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		--include="$packages" "$SUITE" "$tree.new" "$tree.list"
	rm -f "$tree.list"
	touch "$tree.new/.complete"
	rm -rf --one-file-system "$tree"
	mv "$tree.new" "$tree"
}
