# What CI runs.
ci:
    bash .ci/run

# Every test, on real sockets, without root.
test:
    cargo test --workspace --all-features

# An example on generated traffic: `just lab capture`; `just lab --list`.
lab *args:
    cargo run --release --bin lab -- {{ args }}

# The ring code under Miri.
miri:
    MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test --lib ring::

# A fuzzer for ten minutes: a name in tests/fuzz/seeds.
fuzz target:
    mkdir -p target/corpus/{{ target }}
    cargo +nightly fuzz run --fuzz-dir tests/fuzz/libfuzzer {{ target }} target/corpus/{{ target }} tests/fuzz/seeds/{{ target }} -- -max_total_time=600 -max_len=2048

# The listing of the public API, for a look at what a change does to it. Needs cargo-public-api and a nightly toolchain.
api:
    cargo +nightly public-api --all-features -sss > docs/public-api.txt

# What our own code costs a packet; `just micro --check` compares instructions with the baseline (valgrind).
micro *args:
    cargo run --release -p ringtap-micro -- {{ args }}

# ringtap beside its peers, as root; rewrites the tables and the pictures of docs/PERFORMANCE.md. Needs libpcap-dev, tcpdump, dumpcap.
[working-directory: 'benches/field']
bench-field *args:
    cargo run --release --ignore-rust-version --features libpcap,netring32 --bin field -- --markdown ../../docs/PERFORMANCE.md --pictures ../../docs {{ args }}

# Other kernels and cards, in QEMU: all of them, which takes hours and writes docs/KERNELS.md, or those that are named
# (`just kernels --help`).
kernels *args="--logs target/kernels --write docs/KERNELS.md":
    cargo run -p ringtap-kernels -- {{ args }}

# Lets a binary capture without root.
setcap binary:
    sudo setcap cap_net_raw+ep {{ binary }}

# An hour of everything that can happen to sockets; `RINGTAP_SOAK_SEED` repeats one.
soak seconds="3600":
    RINGTAP_SOAK_SECONDS={{ seconds }} cargo test --all-features --test soak

# Do the unit tests notice what is changed? Needs cargo-mutants; takes hours: name files for less.
mutants *args:
    cargo mutants --package ringtap --all-features --cargo-test-arg=--lib {{ args }}

# Formats everything.
fmt:
    cargo fmt --all
