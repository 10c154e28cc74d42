#!/usr/bin/env bash
# The pure packages decide; they do no I/O. That is proved from what they depend on: every package in their dependency trees must be on this list of packages
# that can't read a clock, a file, a socket or randomness. A new one is added here by hand, after a look at what it can do.
set -euo pipefail
cd "$(dirname "$0")/.."

pure_packages="domain-types schemas saga stock-domain payment-domain"

allowed="
domain-types schemas saga stock-domain payment-domain
cfg-if chrono chrono-tz dyn-clone iso_country iso_currency itoa lazy_static memchr num-traits phf phf_shared
proc-macro2 quote ref-cast ref-cast-impl schemars schemars_derive serde serde_core serde_derive serde_derive_internals
serde_json sha1_smol siphasher syn thiserror thiserror-impl unicode-ident uuid zmij
"

# The standard library is a dependency too, one that cargo doesn't list.
forbidden_std='std::(fs|net|process|env|io|os|thread|time::(SystemTime|Instant))|(SystemTime|Instant)::now|Utc::now|Local::now|new_v4|now_v7'

failed=0
for package in $pure_packages; do
    tree=$(cargo tree --quiet --package "$package" --edges normal --prefix none --locked)
    for dependency in $(awk '{print $1}' <<<"$tree" | sort -u); do
        if [[ " ${allowed//$'\n'/ } " != *" $dependency "* ]]; then
            echo "check-purity: $package depends on $dependency, which is not on the list of packages that do no I/O" >&2
            failed=1
        fi
    done
    folder=$(cargo pkgid --package "$package" | sed -E 's#^path\+file://##; s/#.*$//')
    if grep -rnE "$forbidden_std" "$folder/src"; then
        echo "check-purity: $package reaches for the outside world in the lines above" >&2
        failed=1
    fi
done
[ "$failed" = 0 ] && echo "check-purity: $pure_packages: no dependency that does I/O"
exit "$failed"
