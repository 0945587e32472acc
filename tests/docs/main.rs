//! What holds the documents and the sources in step.

mod in_step;
mod layers;

ringtap_lab::test_binary!();
