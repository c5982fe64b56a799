#!/bin/sh
# What the tests need of a Linux system beside Python: bubblewrap, which the code interpreter's sandbox is made with, a
# font with Chinese characters, which its plots and the page are drawn with, Chromium, which shows the page, and tmux,
# which runs the terminal. What is missing is installed where that may be done (as root), else the command is shown. It
# never fails: a test that lacks something skips, and fails in CI.
set -u

has_chinese_font() {
    { fc-list :lang=zh file || find /usr/share/fonts /usr/local/share/fonts -iname '*cjk*'; } 2>/dev/null | grep -q .
}

[ "$(uname)" = Linux ] || exit 0
needed=
command -v bwrap >/dev/null || needed=bubblewrap
command -v tmux >/dev/null || needed="$needed tmux"
command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null ||
    needed="$needed chromium"
if has_chinese_font; then font=; else font=1; fi
[ -n "$needed$font" ] || exit 0

if command -v apt-get >/dev/null; then
    install="apt-get install --yes --no-install-recommends" needed="$needed ${font:+fonts-noto-cjk}"
elif command -v dnf >/dev/null; then
    install="dnf install --assumeyes" needed="$needed ${font:+google-noto-sans-cjk-fonts}"
elif command -v pacman >/dev/null; then
    install="pacman --sync --refresh --noconfirm" needed="$needed ${font:+noto-fonts-cjk}"
elif command -v apk >/dev/null; then
    install="apk add" needed="$needed ${font:+font-noto-cjk}"
else
    echo "Some tests skip without $needed${font:+${needed:+ and }a font with Chinese characters}" >&2
    exit 0
fi
command="$install $(echo $needed)"
# One by one, so that a package that this system does not have keeps none of the others away.
install_each() {
    missing=
    for package in $needed; do $install "$package" || missing="$missing $package"; done
    [ -z "$missing" ] || { echo "not installed:$missing"; return 1; }
}
if [ "$(id -u)" != 0 ]; then
    echo "Some tests skip. So that they run: sudo $command" >&2
    exit 0
fi

echo "For tests: $command"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
{
    # A container has no lists of packages, or old ones.
    case $install in apt-get*) apt-get update ;; esac
    install_each
} >"$log" 2>&1 </dev/null || {
    tail -n 5 "$log"
    echo "This did not work, so some tests skip."
} >&2
rm -f "$log"
