//! io_uring, and what this kernel's does.

use super::Finding;
use crate::reactor::{Abilities, probe};

pub(super) fn look() -> Vec<Finding> {
    let abilities = match probe() {
        Ok(abilities) => abilities,
        Err(error) => {
            let fallback =
                "the built-in executor goes on over poll(2), other runtimes' adapters do not";
            return vec![Finding::failed("ring", &error), Finding::works("without it", fallback)];
        }
    };
    let Abilities { posts_when_asked, is_registered, is_silent, is_moderated, has_no_iowait } =
        abilities;
    let ability = |subject, is_there, detail: &str, since: &str| match is_there {
        true => Finding::works(subject, detail),
        false => Finding::limited(
            subject,
            format!("no: {detail}"),
            &format!("Linux {since} has it, if nothing forbids it"),
        ),
    };
    vec![
        Finding::works("ring", "multishot polls, timeouts"),
        ability("deferred work", posts_when_asked, "completions only when asked for", "6.1"),
        ability("registered ring", is_registered, "entered by a registered descriptor", "5.18"),
        ability("silent kicks", is_silent, "a kick posts no completion", "5.17"),
        ability("moderated waits", is_moderated, "`Coalesce` takes one system call", "6.12"),
        ability("idle waits", has_no_iowait, "no I/O wait in the load and in PSI", "6.15"),
    ]
}
