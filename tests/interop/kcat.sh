#!/usr/bin/env bash
# kcat: what a shell script does with a broker. Called as `kcat.sh BOOTSTRAP CASE ARGUMENTS...`.
set -euo pipefail
bootstrap=$1 case=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "$@" >&2
    exit 1
}

kc() { timeout 240 kcat -b "$bootstrap" -X message.timeout.ms=200000 "$@"; }

# Compares a file with what is expected on standard input.
same() {
    diff "$1" - >&2 || fail "$2: not what was written"
}

data() {
    head -c 742500 /dev/urandom | base64 -w0 >"$work/large"
    for codec in none gzip snappy lz4 zstd; do
        topic=kcat-$codec
        # Keys, headers, and (-Z) null for what is empty.
        printf 'k1:one\nk2:\n:three\n' | kc -P -t "$topic" -p 0 -z "$codec" -K: -Z -H source=interop -H number=7 -X acks=all -X enable.idempotence=true
        kc -P -t "$topic" -p 0 -z "$codec" -k large -X acks=1 "$work/large"
        printf 'unheard\n' | kc -P -t "$topic" -p 0 -z "$codec" -X acks=0
        kc -C -t "$topic" -p 0 -o beginning -c 5 -q -f '%o %k %S %h\n' >"$work/seen"
        same "$work/seen" "$codec" <<END
0 k1 3 source=interop,number=7
1 k2 -1 source=interop,number=7
2  5 source=interop,number=7
3 large 990000 
4  7 
END
        kc -C -t "$topic" -p 0 -o 3 -c 1 -q -D '' >"$work/read"
        cmp "$work/large" "$work/read" >&2 || fail "$codec: 1 MB came back changed"
    done
}

# Offsets by number, by time, from the end; the list of brokers and topics.
spread() {
    topic=kcat-times
    printf 'a\nb\nc\nd\n' | kc -P -t "$topic" -p 0
    kc -C -t "$topic" -p 0 -o 2 -c 2 -q >"$work/seen"
    printf 'c\nd\n' | same "$work/seen" "from offset 2"
    kc -C -t "$topic" -p 0 -o -1 -c 1 -q >"$work/seen"
    printf 'd\n' | same "$work/seen" "the last one"
    kc -C -t "$topic" -p 0 -o s@1000 -o e@9999999999999 -c 4 -q >"$work/seen"
    printf 'a\nb\nc\nd\n' | same "$work/seen" "by time"
    [ "$(kc -Q -t "$topic:0:1000")" = "$topic [0] offset 0" ] || fail "the offset at a time"
    [ "$(kc -Q -t "$topic:0:-1")" = "$topic [0] offset 4" ] || fail "the end offset"
    kc -L -J >"$work/list"
    grep -q "\"topic\":\"$topic\"" "$work/list" || fail "not listed: $(cat "$work/list")"
    kc -C -t "$topic" -p 0 -o end -e -q >"$work/seen" || fail "reading at the end"
    [ ! -s "$work/seen" ] || fail "records after the end: $(cat "$work/seen")"
}

produce() { seq -f 'v%.0f' "$2" $(($3 - 1)) | kc -P -t "$1" -X acks=all; }

consume() { kc -G "$2" -c "$3" -X auto.offset.reset=earliest -q -u -f 'value %s\n' "$1"; }

"$case" "$@"
