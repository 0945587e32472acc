//! What holds the documents and the sources in step.

mod in_step;
mod layers;
mod pasted;

ringtap_lab::test_binary!();
