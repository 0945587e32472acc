//! Invalid filters, and files that are not capture files.

use std::path::PathBuf;

use ringtap::error::{FileFault, ProgramFault};
use ringtap::filter::BpfInsn;
use ringtap::pcap::{CaptureReader, CaptureWriter, FileFormat};
use ringtap::{BpfFilter, Error};
use ringtap_lab::Directory;

use crate::says;

fn insn(code: u16, jt: u8, jf: u8, k: u32) -> BpfInsn {
    BpfInsn { code, jt, jf, k }
}

const RETURN: u16 = 0x06;

#[ringtap_lab::test]
fn texts() {
    says!(
        "tcp port 99999".parse::<BpfFilter>(),
        Error::Filter(_),
        "filter: expected a port, 0 to 65535\n  tcp port 99999\n           ^"
    );
}

#[ringtap_lab::test]
fn programs() {
    let check = |program: &[BpfInsn]| BpfFilter::new(program);
    let end = insn(RETURN, 0, 0, 1);
    says!(
        check(&[]),
        Error::Program(ProgramFault::Length { instructions: 0 }),
        "filter program: a program has 1 to 4096 instructions, and this one 0"
    );
    let cases: [(&[BpfInsn], ProgramFault, &str); 8] = [
        (
            &[insn(0xff, 0, 0, 0), end],
            ProgramFault::Unknown { at: 0, code: 0xff },
            "instruction 0 has the unknown code 0xff",
        ),
        (
            &[insn(0x15, 9, 0, 0), end],
            ProgramFault::JumpOut { at: 0 },
            "instruction 0 jumps out of the program",
        ),
        (
            &[insn(0x34, 0, 0, 0), end],
            ProgramFault::DivisionByZero { at: 0 },
            "instruction 0 divides by 0",
        ),
        (
            &[insn(0x64, 0, 0, 32), end],
            ProgramFault::Shift { at: 0 },
            "instruction 0 shifts by 32 bits or more",
        ),
        (
            &[insn(0x02, 0, 0, 16), end],
            ProgramFault::NoSuchCell { at: 0 },
            "instruction 0 names a cell of scratch memory beyond the 16 there are",
        ),
        (
            &[insn(0x60, 0, 0, 3), end],
            ProgramFault::UnsetCell { at: 0 },
            "instruction 0 reads a cell of scratch memory that may not have been written yet",
        ),
        (
            &[insn(0x20, 0, 0, 0xffff_fff0), end],
            ProgramFault::UnknownAncillary { at: 0 },
            "instruction 0 loads from an offset that has no meaning",
        ),
        (&[insn(0x00, 0, 0, 0)], ProgramFault::NoReturn, "the last instruction is not a `ret`"),
    ];
    for (program, fault, text) in cases {
        says!(check(program), Error::Program(found) if *found == fault, "filter program: {text}");
    }
}

/// A file with these words in it, in this machine's order.
struct Files(Directory);

impl Files {
    fn write(&self, words: &[u32]) -> PathBuf {
        let path = self.0.path().join("file");
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

/// Reads all there is.
fn read(path: &std::path::Path) -> Result<usize, Error> {
    let mut reader = CaptureReader::open(path)?;
    let mut packets = 0;
    while reader.next_record()?.is_some() {
        packets += 1;
    }
    Ok(packets)
}

const SECTION: [u32; 7] = [0x0a0d_0d0a, 28, 0x1a2b_3c4d, 1, u32::MAX, u32::MAX, 28];

#[ringtap_lab::test]
fn files() {
    let files = Files(Directory::new());
    let fault = |words: &[u32], is_it: fn(&FileFault) -> bool, text: &str| {
        let path = files.write(words);
        let shown = path.display();
        says!(
            read(&path),
            Error::File(error) if is_it(error.fault()) && error.path() == Some(&path),
            "capture file {shown}, byte {text}"
        );
    };
    let behind_section = |words: &[u32]| [&SECTION[..], words].concat();
    fault(
        &[0x0102_0304_u32.to_be()],
        |fault| matches!(fault, FileFault::NotACapture { magic: [1, 2, 3, 4] }),
        "0: not a pcap or pcapng file: it begins with 01 02 03 04 (compressed ones need the features `gzip` or `lz4`)",
    );
    fault(
        &[0xa1b2_c3d4, 9 | 1 << 16, 0, 0, 65_535, 1],
        |fault| matches!(fault, FileFault::Version { major: 9, minor: 1 }),
        "4: format version 9.1 is not known",
    );
    fault(
        &[0xa1b2_c3d4, 2 | 4 << 16, 0, 0, 65_535, 1, 0, 0],
        |fault| matches!(fault, FileFault::CutShort),
        "24: the file ends inside of a packet or block",
    );
    fault(
        &behind_section(&[6, 10, 0]),
        |fault| matches!(fault, FileFault::BlockLength { kind: 6, len: 10 }),
        "28: a block of type 0x6 cannot have length 10",
    );
    fault(
        &[0xa1b2_c3d4, 2 | 4 << 16, 0, 0, 65_535, 1, 0, 0, 17 << 20, 17 << 20],
        |fault| matches!(fault, FileFault::TooLong { .. }),
        "24: a packet or block of 17825792 bytes; 16 MiB is the most",
    );
    fault(
        &behind_section(&[1, 24, 1, 0, 2 | 200 << 16, 24]),
        |fault| matches!(fault, FileFault::Option { kind: 1, code: 2 }),
        "28: option 2 does not fit into its block of type 0x1",
    );
    fault(
        &behind_section(&[6, 32, 7, 0, 0, 0, 0, 32]),
        |fault| matches!(fault, FileFault::NoInterface { id: 7 }),
        "28: no interface 7 was described before",
    );
    let many: Vec<u32> = std::iter::repeat_n([1, 20, 1, 0, 20], 65_537).flatten().collect();
    fault(
        &behind_section(&many),
        |fault| matches!(fault, FileFault::TooManyInterfaces),
        "1310748: more than 65536 interfaces are described",
    );
    // A description of 65,532 bytes each.
    let long = [[1, 65_556, 1, 0, 3 | 65_532 << 16].as_slice(), &[0x7878_7878; 16_383], &[65_556]];
    let long: Vec<u32> = std::iter::repeat_n(long.concat(), 257).flatten().collect();
    fault(
        &behind_section(&long),
        |fault| matches!(fault, FileFault::TooMuchText),
        "16782364: names, descriptions and filters of interfaces take more than 16 MiB in all",
    );
    let absent = files.0.path().join("absent");
    let shown = absent.display();
    says!(
        CaptureReader::open(&absent).map(drop),
        Error::File(error) if matches!(error.fault(), FileFault::Io(_)),
        "capture file {shown}: No such file or directory (os error 2)"
    );
    let path = files.write(&SECTION);
    let shown = path.display();
    says!(
        CaptureWriter::builder().format(FileFormat::PcapNanos).append(&path).map(drop),
        Error::File(error) if matches!(error.fault(), FileFault::Differs),
        "capture file {shown}, byte 0: the file's format or link type differs from that of the data to append"
    );
}
