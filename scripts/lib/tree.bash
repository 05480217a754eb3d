# The tree as it stands, elsewhere. Sourced, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# tree_files: every file that git tracks or does not ignore, each ended by a zero byte.
tree_files() {
    (cd "$root" && git ls-files -z --cached --others --exclude-standard | sort -z -u |
        while IFS= read -r -d '' file; do [ ! -f "$file" ] || printf '%s\0' "$file"; done)
}

# copy_tree DIRECTORY: makes it a copy of the tree. Files that are already alike are left alone, so that a build in the
# copy compiles only what changed.
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
