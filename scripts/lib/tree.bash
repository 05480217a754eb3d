# The current tree: its version, its files, a copy. Sourced, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# package_version: the version of the first entry of debian/changelog, which all packages have.
package_version() { sed -n '1s/.*(\(.*\)).*/\1/p' "$root/debian/changelog"; }

# package_date: the date of that entry, in seconds since 1970: the date of the files in packages.
package_date() { date --date "$(sed -n '/^ -- /{s/^.*>  //p;q}' "$root/debian/changelog")" +%s; }

# tree_files: every file that git tracks or does not ignore, each followed by a zero byte.
tree_files() {
    (cd "$root" && git ls-files -z --cached --others --exclude-standard | sort -z -u |
        while IFS= read -r -d '' file; do [ ! -f "$file" ] || printf '%s\0' "$file"; done)
}

# copy_tree DIRECTORY: makes DIRECTORY a copy of the tree. Does not touch equal files, so that a build in the copy
# compiles only changed files.
copy_tree() {
    mkdir -p "$1"
    (cd "$1" && find . -type f -printf '%P\0') |
        while IFS= read -r -d '' file; do [ -f "$root/$file" ] || rm "$1/$file"; done
    tree_files |
        while IFS= read -r -d '' file; do
            cmp -s "$root/$file" "$1/$file" && continue
            mkdir -p "$1/$(dirname "$file")"
            cp -p "$root/$file" "$1/$file"
        done
}
