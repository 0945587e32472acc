use proptest::prelude::*;

use super::*;

/// Formats the output: bytes as they are, a gap as `[n]`, the end as `.`.
fn told(pieces: &mut Vec<u8>) -> impl FnMut(Piece<'_>) + '_ {
    |piece| match piece {
        Piece::Fresh { bytes, .. } => pieces.extend_from_slice(bytes),
        Piece::Kept(bytes) => pieces.extend_from_slice(&bytes),
        Piece::Gap(bytes) => pieces.extend_from_slice(format!("[{bytes}]").as_bytes()),
        Piece::Fin => pieces.push(b'.'),
    }
}

fn give(half: &mut HalfStream, seq: u32, payload: &str) -> String {
    let mut out = Vec::new();
    half.segment(Segment::new(seq, payload.as_bytes()), &mut told(&mut out));
    String::from_utf8(out).unwrap()
}

fn syn(half: &mut HalfStream, seq: u32) {
    let segment = Segment { syn: true, ..Segment::new(seq, &[]) };
    half.segment(segment, &mut |piece| panic!("{piece:?}"));
}

fn flushed(half: &mut HalfStream) -> String {
    let mut out = Vec::new();
    half.flush(&mut told(&mut out));
    String::from_utf8(out).unwrap()
}

#[test]
fn bytes_come_out_in_order_once_and_across_the_wrap() {
    for start in [0, 1000, u32::MAX - 3, u32::MAX] {
        let mut half = HalfStream::new();
        syn(&mut half, start.wrapping_sub(1));
        let at = |place: u32| start.wrapping_add(place);
        assert_eq!(give(&mut half, at(0), "ab"), "ab");
        assert_eq!(give(&mut half, at(4), "ef"), "");
        assert_eq!(give(&mut half, at(8), "ij"), "");
        assert_eq!(give(&mut half, at(0), "abcd"), "cdef", "sent again with more");
        assert_eq!(give(&mut half, at(2), "cd"), "");
        assert_eq!(give(&mut half, at(6), "ghijkl"), "ghijkl");
        assert_eq!(half.held(), 0);
        let stats = half.stats();
        assert_eq!((stats.segments, stats.out_of_order, stats.retransmits), (6, 2, 1));
        assert_eq!((stats.bytes, stats.gaps, stats.inconsistencies), (12, 0, 0));
    }
}

#[test]
fn what_is_next_is_not_copied() {
    let mut half = HalfStream::new();
    let mut seen = Vec::new();
    for (seq, payload) in [(5, "abc"), (7, "cde")] {
        half.segment(Segment::new(seq, payload.as_bytes()), &mut |piece| {
            let Piece::Fresh { at, bytes } = piece else { panic!("{piece:?}") };
            assert_eq!(bytes.as_ptr(), payload[at..].as_ptr());
            seen.push(at);
        });
    }
    assert_eq!(seen, [0, 1]);
}

#[test]
fn what_is_missing_is_given_up_when_it_was_acknowledged_or_too_much_waits_or_at_the_end() {
    let mut half = HalfStream::new().with_cap(200);
    assert_eq!(give(&mut half, 0, "a"), "a");
    assert_eq!(give(&mut half, 5, "fg"), "");
    let mut out = Vec::new();
    half.acked(5, &mut told(&mut out));
    assert!(out.is_empty(), "just what is missing was acknowledged: it may still come");
    half.acked(6, &mut told(&mut out));
    assert_eq!(out, b"[4]fg");
    assert_eq!(give(&mut half, 2, "cde"), "", "late");
    assert_eq!(give(&mut half, 10, "k"), "");
    assert_eq!(give(&mut half, 12, "m"), "");
    assert_eq!(give(&mut half, 14, &"o".repeat(30)), "[3]k", "129 bytes wait now");
    assert_eq!(flushed(&mut half), format!("[1]m[1]{}", "o".repeat(30)));
    assert_eq!((half.stats().gaps, half.stats().gap_bytes, half.held()), (4, 9, 0));
}

#[test]
fn where_segments_overlap_the_first_or_the_last_stands_and_it_is_told() {
    for (overlap, stands, differ) in
        [(Overlap::First, "_-cde-gh-", 3), (Overlap::Last, "_--------", 2)]
    {
        let mut half = HalfStream::new().with_overlap(overlap);
        assert_eq!(give(&mut half, 0, "a"), "a");
        assert_eq!(give(&mut half, 3, "cde"), "");
        assert_eq!(give(&mut half, 7, "gh"), "");
        assert_eq!(give(&mut half, 4, "de"), "", "the same again");
        assert_eq!(half.stats().inconsistencies, 0);
        assert_eq!(give(&mut half, 2, "-------"), "");
        assert_eq!(give(&mut half, 8, "--"), "");
        assert_eq!(half.stats().inconsistencies, differ);
        assert_eq!(give(&mut half, 1, "_"), stands);
        assert_eq!(half.held(), 0);
    }
}

#[test]
fn a_cut_segment_leaves_a_gap_and_a_fin_waits_for_what_is_before_it() {
    let mut half = HalfStream::new();
    let mut out = Vec::new();
    half.segment(Segment { len: 10, ..Segment::new(0, b"abc") }, &mut told(&mut out));
    half.segment(Segment { fin: true, ..Segment::new(12, b"xy") }, &mut told(&mut out));
    assert_eq!(out, b"abc[7]");
    assert_eq!(give(&mut half, 10, "vw"), "vwxy.");
    assert_eq!(flushed(&mut half), "");
}

#[test]
fn the_same_ports_for_another_connection_begin_anew_and_a_forged_syn_does_not() {
    let mut half = HalfStream::new();
    syn(&mut half, 99);
    syn(&mut half, 499);
    assert_eq!(give(&mut half, 500, "ab"), "ab", "nothing had come of the first");
    syn(&mut half, 0x7000_0000);
    assert_eq!(give(&mut half, 502, "cd"), "cd");
    assert_eq!(give(&mut half, 505, "f"), "");
    assert_eq!(give(&mut half, 0x7000_0001, "new"), "[1]fnew");
    assert_eq!(give(&mut half, 0x7000_0004, "er"), "er");
}

#[test]
fn a_spray_of_single_bytes_is_bounded() {
    let mut half = HalfStream::new().with_cap(64 * 1024);
    let mut gone = 0;
    for place in 0..200_000_u32 {
        half.segment(Segment::new(2 * place + 1, b"x"), &mut |piece| {
            gone += u64::from(matches!(piece, Piece::Gap(_)));
        });
        assert!(half.held() <= 64 * 1024);
    }
    assert!(gone > 190_000);
}

#[test]
fn what_is_missing_before_a_fin_is_a_gap() {
    let fin = |seq| Segment { fin: true, ..Segment::new(seq, b"") };
    let mut half = HalfStream::new();
    let mut out = Vec::new();
    assert_eq!(give(&mut half, 0, "a"), "a");
    half.segment(fin(10), &mut told(&mut out));
    half.acked(10, &mut told(&mut out));
    assert!(out.is_empty());
    half.acked(11, &mut told(&mut out));
    assert_eq!(out, b"[9].");
    let mut half = HalfStream::new();
    assert_eq!(give(&mut half, 0, "a"), "a");
    half.segment(fin(5), &mut told(&mut out));
    assert_eq!(flushed(&mut half), "[4].");
}

#[test]
fn one_segment_far_away_is_not_believed_and_a_stream_that_goes_on_there_is() {
    for is_acked in [true, false] {
        let mut half = HalfStream::new();
        assert_eq!(give(&mut half, 0, "a"), "a");
        let away = 1 << 30;
        assert_eq!(give(&mut half, away, "forged"), "");
        let mut out = Vec::new();
        half.acked(away + 6, &mut told(&mut out));
        assert!(out.is_empty());
        assert_eq!(give(&mut half, 1, "bc"), "bc");
        let mut place = away + 1000;
        let mut heard = String::new();
        for _ in 0..40 {
            heard += &give(&mut half, place, "x");
            place += 1;
            if is_acked {
                half.acked(place, &mut told(&mut out));
            }
        }
        heard.insert_str(0, &String::from_utf8(out).unwrap());
        let lost = if is_acked { 3 } else { 31 };
        let gap = 1000 + away - 3 + lost;
        assert_eq!(heard, format!("[{gap}]{}", "x".repeat(40 - lost as usize)));
    }
}

proptest! {
    /// Splits a stream into segments, some repeated, some longer, in any order. The stream comes out unchanged,
    /// or with gaps of the right length for missing segments.
    #[test]
    fn whatever_the_order_the_stream_comes_out(
        start in any::<u32>(),
        cuts in prop::collection::vec((0_usize..300, 1_usize..60, any::<bool>()), 1..80),
        lost in prop::option::of(0_usize..300),
        last in any::<bool>(),
    ) {
        let stream: Vec<u8> = (0..360_u32).map(|at| (at % 251) as u8).collect();
        let overlap = if last { Overlap::Last } else { Overlap::First };
        let mut half = HalfStream::new().with_overlap(overlap);
        syn(&mut half, start.wrapping_sub(1));
        let mut seen = vec![false; stream.len()];
        let mut out: Vec<Option<u8>> = Vec::new();
        let mut note = |piece: Piece<'_>| match piece {
            Piece::Fresh { bytes, .. } => out.extend(bytes.iter().copied().map(Some)),
            Piece::Kept(bytes) => out.extend(bytes.into_iter().map(Some)),
            Piece::Gap(bytes) => out.extend((0..bytes).map(|_| None)),
            Piece::Fin => {}
        };
        for (at, len, again) in cuts {
            if lost.is_some_and(|lost| (at..at + len).contains(&lost)) {
                continue;
            }
            for _ in 0..1 + usize::from(again) {
                let seq = start.wrapping_add(at as u32);
                half.segment(Segment::new(seq, &stream[at..at + len]), &mut note);
            }
            seen[at..at + len].fill(true);
        }
        half.flush(&mut note);
        prop_assert_eq!(half.held(), 0);
        prop_assert_eq!(half.stats().inconsistencies, 0);
        let until = seen.iter().rposition(|seen| *seen).map_or(0, |last| last + 1);
        let expected: Vec<Option<u8>> =
            (0..until).map(|at| seen[at].then_some(stream[at])).collect();
        prop_assert_eq!(out, expected);
    }
}
