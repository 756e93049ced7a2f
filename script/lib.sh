# What the scripts share. Sourced, not run.

# as_root runs the script again as root when it is not.
as_root() {
	[ "$(id -u)" = 0 ] && return
	if command -v sudo >/dev/null; then
		exec sudo -E env "PATH=$PATH" "$0" "$@"
	fi
	echo "This needs root; su asks for its password." >&2
	exec su root -c "PATH='$PATH' '$0' $*"
}

# need_go finds a Go toolchain also where root's PATH has none.
need_go() {
	command -v go >/dev/null || PATH="$PATH:/usr/local/go/bin:/usr/lib/go/bin"
	command -v go >/dev/null || { echo "Go is missing: install Go 1.26 or newer from https://go.dev/dl" >&2; exit 1; }
	export PATH
}

# install_packages PACKAGE... installs Debian packages that are missing, and
# says which cannot be had; what needs them is skipped with a reason then.
install_packages() {
	command -v apt-get >/dev/null || { echo "no apt-get here: $* are not installed" >&2; return 0; }
	local missing=()
	for p in "$@"; do
		dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
	done
	[ ${#missing[@]} = 0 ] && return
	echo "installing: ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	local apt=(apt-get -qq -o DPkg::Lock::Timeout=300) # somebody else may be installing
	"${apt[@]}" update || true
	for p in "${missing[@]}"; do
		"${apt[@]}" install -y --no-install-recommends "$p" >/dev/null 2>&1 || echo "  $p cannot be had" >&2
	done
}
