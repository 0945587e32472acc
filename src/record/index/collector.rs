//! The terms of packets on their way into a file.

use ringtap_filter::{Headers, LinkType, VlanTag};

use super::{Bloom, Group, append};

/// A group has this many bytes at least, so that its entry is a small part of it.
pub(crate) const GROUP: u64 = 256 << 10;
/// A filter is at most this part of its group.
const PART: u64 = 128;
/// The packets whose gists are remembered: most packets are of a flow that was just seen.
const GISTS: usize = 256;
/// The packets without a gist whose headers are remembered.
const REMEMBERED: usize = 64;
/// That of no packet.
const NO_GIST: [u64; 2] = [u64::MAX; 2];

/// Gathers the terms of packets, and makes entries of the parts of a file.
#[derive(Debug)]
pub(crate) struct Collector {
    link: LinkType,
    /// Of packets that were seen.
    gists: Box<[[u64; 2]]>,
    headers: Box<[Headers]>,
    bloom: Bloom,
    /// There is a packet whose terms are not known.
    is_unknown: bool,
    /// The parts noted so far that are going to be one group.
    group: Option<Group>,
}

impl Collector {
    /// Gathers terms of packets of this link type.
    pub(crate) fn new(link: LinkType) -> Self {
        let headers = vec![Headers::default(); REMEMBERED].into();
        let gists = vec![NO_GIST; GISTS].into();
        Self { link, gists, headers, bloom: Bloom::new(), is_unknown: false, group: None }
    }

    /// Sees a packet of the part that is noted next. Its tag may be beside it.
    #[inline]
    pub(crate) fn see(&mut self, frame: &[u8], tag: Option<VlanTag>) {
        if tag.is_none()
            && let Some(gist) = Headers::gist(self.link, frame)
        {
            let [addresses, rest] = gist;
            let mixed = (addresses ^ rest).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let remembered = &mut self.gists[(mixed >> 32) as usize % GISTS];
            if *remembered == gist {
                return;
            }
            *remembered = gist;
        }
        self.see_headers(frame, tag);
    }

    fn see_headers(&mut self, frame: &[u8], tag: Option<VlanTag>) {
        let headers = Headers::read(self.link, frame);
        let headers = match tag {
            Some(tag) => headers.and_then(|headers| headers.behind(tag)),
            None => headers,
        };
        let Some(headers) = headers else {
            self.is_unknown = true;
            return;
        };
        let remembered = &mut self.headers[headers.spread() as usize % REMEMBERED];
        if *remembered != headers {
            *remembered = headers;
            headers.terms().for_each(|term| self.bloom.add(term.key()));
        }
    }

    /// Notes the part of the file that the packets seen since the last one are in.
    pub(crate) fn note(&mut self, part: Group, out: &mut Vec<u8>) {
        let group = match self.group {
            Some(group) if group.end() == part.offset => Group {
                span: group.span + part.span,
                packets: group.packets + part.packets,
                times: (group.times.0.min(part.times.0), group.times.1.max(part.times.1)),
                ..group
            },
            // Another group that does not go on here has no entry. Its terms are found in this one, which is no harm.
            _ => part,
        };
        self.group = Some(group);
        if group.span >= GROUP {
            self.end_group(out);
        }
    }

    /// Leaves the group without an entry: its parts are going to be looked at. Its terms are found in the next one, too.
    pub(crate) fn forget_group(&mut self) {
        self.group = None;
    }

    /// Ends the group: what follows in the file has no part in it.
    pub(crate) fn end_group(&mut self, out: &mut Vec<u8>) {
        let Some(group) = self.group.take() else { return };
        match self.is_unknown {
            true => append(out, group, &[u64::MAX]), // which may have any term
            false => {
                let most = (group.span / PART / 8).max(1).ilog2();
                append(out, group, self.bloom.fold(1 << most));
            }
        }
        self.bloom.clear();
        self.headers.fill(Headers::default());
        self.gists.fill(NO_GIST);
        self.is_unknown = false;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BEGINNING, MAGIC, entries};
    use super::*;
    use ringtap_filter::Term;

    fn part(offset: u64, span: u64) -> Group {
        Group { offset, span, packets: 1, times: (offset, offset + 1) }
    }

    fn beginning() -> Vec<u8> {
        let mut index = MAGIC.to_vec();
        index.resize(BEGINNING, 0);
        index
    }

    fn packet(host: u8) -> [u8; 20] {
        [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 50, 0, 0, 192, 0, 2, host, 192, 0, 2, 1]
    }

    #[test]
    fn parts_become_groups_that_have_the_terms_of_their_packets() {
        let mut collector = Collector::new(LinkType::RAW);
        let mut index = beginning();
        let mut note = |collector: &mut Collector, hosts: &[u8], part: Group| {
            hosts.iter().for_each(|host| collector.see(&packet(*host), None));
            collector.note(part, &mut index);
        };
        note(&mut collector, &[7, 7], part(4096, 4096));
        note(&mut collector, &[8], part(8192, GROUP));
        note(&mut collector, &[9], part(8192 + GROUP, GROUP));
        collector.see(&packet(7), Some(VlanTag { tci: 5, tpid: 0x8100 }));
        note(&mut collector, &[], part(8192 + 2 * GROUP, 4096));
        collector.end_group(&mut index);
        let host = |host: u8| Term::Host([192, 0, 2, host].into()).key();
        let found: Vec<_> = entries(&index)
            .map(|entry| {
                let hosts: Vec<u8> = (2..30).filter(|number| entry.has(host(*number))).collect();
                (entry.group.offset, entry.group.span, entry.group.packets, hosts)
            })
            .collect();
        assert_eq!(
            found,
            [
                (4096, 4096 + GROUP, 2, vec![7, 8]),
                (8192 + GROUP, GROUP, 1, vec![9]),
                (8192 + 2 * GROUP, 4096, 1, vec![7])
            ]
        );
        let last = entries(&index).last().unwrap();
        assert!(last.has(Term::Vlan(5).key()) && last.has(Term::Tagged.key()));
        assert_eq!(last.group.times, (8192 + 2 * GROUP, 8193 + 2 * GROUP));
        assert!(index.len() as u64 * 100 < 2 * GROUP);
    }

    #[test]
    fn a_group_with_packets_that_are_not_known_may_have_any_term() {
        let mut collector = Collector::new(LinkType::PPP);
        let mut index = beginning();
        collector.see(&packet(7), None);
        collector.note(part(4096, GROUP), &mut index);
        let known: Vec<bool> = entries(&index).map(|entry| entry.has(7) && entry.has(8)).collect();
        assert_eq!(known, [true]);
    }
}
