//! What a filter means.

use ringtap::BpfFilter;
use ringtap::filter::{FilterTarget, LinkType};

use crate::cli::FilterArgs;
use crate::say::say;
use crate::sink::Outcome;

pub(super) fn run(args: &FilterArgs) -> Outcome<()> {
    let filter: BpfFilter = args.words.join(" ").parse()?;
    let filter = filter.on(Some(LinkType(args.link)))?;
    let target = if args.offline { FilterTarget::Offline } else { FilterTarget::Socket };
    if args.offline {
        filter.check_offline()?;
    }
    let program = filter.program(target);
    if args.numbers {
        say!("{}", program.len())?;
        for insn in program {
            say!("{} {} {} {}", insn.code, insn.jt, insn.jf, insn.k)?;
        }
        return Ok(());
    }
    say!("filter: {filter}")?;
    say!("by the index of a recording: {}", filter.needs())?;
    match filter.check_offline() {
        Ok(()) => say!("on packets in files: yes")?,
        Err(error) => say!("on packets in files: no, {error}")?,
    }
    let place = if args.offline { "on packets in files" } else { "in the kernel, on a socket" };
    say!("{place}, {} instructions:", program.len())?;
    say!("{}", filter.disassembly(target).trim_end())?;
    Ok(())
}
