#!/bin/sh
# What the tests need of the system, beside Python: bubblewrap, which the code interpreter's sandbox is made with, and a
# font with Chinese characters for its plots. Installs what is missing where that may be done (as root), else says how.
# It never fails: tests that lack something skip, or fail in CI.
set -u

has_font() {
    find /usr/share/fonts /usr/local/share/fonts "${XDG_DATA_HOME:-$HOME/.local/share}/fonts" /System/Library/Fonts \
        -iname '*cjk*' -o -iname '*wqy*' -o -iname '*pingfang*' -o -iname '*hiragino*' 2>/dev/null | grep -q .
}

missing=
[ "$(uname)" != Linux ] || command -v bwrap >/dev/null || missing=bubblewrap
if has_font; then font=; else font=yes; fi
[ -n "$missing$font" ] || exit 0

for manager in apt-get dnf pacman apk ''; do
    [ -z "$manager" ] || ! command -v "$manager" >/dev/null || break
done
case $manager in
    apt-get) install="apt-get install --yes --no-install-recommends" font=${font:+fonts-noto-cjk} ;;
    dnf) install="dnf install --assumeyes" font=${font:+google-noto-sans-cjk-fonts} ;;
    pacman) install="pacman --sync --refresh --noconfirm" font=${font:+noto-fonts-cjk} ;;
    apk) install="apk add" font=${font:+font-noto-cjk} ;;
    *)
        echo "Tests of the code interpreter skip: install ${missing:-} ${font:+a font with Chinese characters}" >&2
        exit 0
        ;;
esac
command="$install${missing:+ $missing}${font:+ $font}"
if [ "$(id -u)" != 0 ]; then
    echo "Some tests of the code interpreter skip. They run after: sudo $command" >&2
    exit 0
fi
echo "For tests of the code interpreter: $command"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
# A fresh container has no lists of packages, and an old one has outdated ones.
if { [ "$manager" != apt-get ] || apt-get update; } >"$log" 2>&1 && $command >>"$log" 2>&1; then
    rm -f "$log"
else
    tail -n 5 "$log" >&2
    echo "It did not work (the whole story: $log); some tests of the code interpreter skip." >&2
fi
