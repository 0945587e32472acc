# What CI runs.
ci:
    bash .ci/run

# Every test, on real sockets, without root.
test:
    cargo test --workspace --all-features

# The ring code under Miri.
miri:
    MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test --lib ring::

# Lets a binary capture without root.
setcap binary:
    sudo setcap cap_net_raw+ep {{ binary }}

# Formats everything.
fmt:
    cargo fmt --all
