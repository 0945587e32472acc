//! The kernel's description of its own types (Documentation/bpf/btf.rst): as much as it takes to call a kernel
//! function from an eBPF program, which names the function by its number there.

use std::collections::HashMap;
use std::io;

/// Where the kernel shows its description.
const KERNEL: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const HEADER: usize = 24;
/// Length of the part that all descriptions of a type begin with: name, kind and size.
const TYPE: usize = 12;
const FUNCTION: u32 = 12;

/// Returns the numbers of the kernel's functions with these names, as far as it has them.
///
/// Needs no capability; the file has some 5 MB.
pub(crate) fn kernel_functions(names: &[&'static str]) -> io::Result<HashMap<&'static str, u32>> {
    functions(&std::fs::read(KERNEL)?, names)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is not BTF"))
}

fn functions(btf: &[u8], names: &[&'static str]) -> Option<HashMap<&'static str, u32>> {
    if u16::from_ne_bytes(*btf.first_chunk()?) != MAGIC || btf.len() < HEADER {
        return None;
    }
    let header_len = word(btf, 4)? as usize;
    let part = |at: usize| {
        let (from, len) = (word(btf, at)? as usize, word(btf, at + 4)? as usize);
        btf.get(header_len.checked_add(from)?..)?.get(..len)
    };
    let (mut types, strings) = (part(8)?, part(16)?);
    let mut found = HashMap::new();
    let mut id = 1;
    while !types.is_empty() {
        let (name, info) = (word(types, 0)? as usize, word(types, 4)?);
        let kind = info >> 24 & 0x1f;
        if kind == FUNCTION {
            let is = |sought: &&&str| {
                let (text, end) = (strings.get(name..), name + sought.len());
                text.is_some_and(|text| text.starts_with(sought.as_bytes()))
                    && strings.get(end) == Some(&0)
            };
            if let Some(sought) = names.iter().find(is) {
                found.insert(*sought, id);
            }
        }
        types = types.get(TYPE + extra(kind, info as usize & 0xffff)?..)?;
        id += 1;
    }
    Some(found)
}

/// Returns how many bytes follow the description of a type of this kind and number of members.
fn extra(kind: u32, members: usize) -> Option<usize> {
    Some(match kind {
        1 | 14 | 17 => 4,                // integer, variable, tag of a declaration
        3 => 12,                         // array
        4 | 5 | 15 | 19 => 12 * members, // struct, union, section, enumeration of 64 bits
        6 | 13 => 8 * members,           // enumeration, prototype
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None, // of a later kernel
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn btf(types: &[u32], strings: &[u8]) -> Vec<u8> {
        let mut btf = vec![0; 4];
        btf[..2].copy_from_slice(&MAGIC.to_ne_bytes());
        let len = 4 * types.len() as u32;
        for word in [HEADER as u32, 0, len, len, strings.len() as u32].iter().chain(types) {
            btf.extend_from_slice(&word.to_ne_bytes());
        }
        [btf, strings.to_vec()].concat()
    }

    #[test]
    fn functions_are_found_by_their_whole_names_behind_types_of_any_length() {
        let strings = b"\0one\0one_more\0two\0";
        let types = [
            [0, 1 << 24, 4, 32].as_slice(),          // an integer
            &[0, 4 << 24 | 2, 8, 0, 1, 0, 0, 1, 32], // a struct of two
            &[5, 12 << 24, 1],                       // one_more
            &[1, 8 << 24, 1],                        // a type called `one`
            &[1, 12 << 24, 1],                       // one
            &[14, 12 << 24, 1],                      // two
        ]
        .concat();
        let whole = btf(&types, strings);
        let found = functions(&whole, &["one", "two", "three"]).unwrap();
        assert_eq!((found.get("one"), found.get("two"), found.len()), (Some(&5), Some(&6), 2));
        for len in 0..whole.len() {
            assert!(functions(&whole[..len], &["one"]).is_none(), "cut to {len}");
        }
        let unknown = btf(&[0, 31 << 24, 0], b"\0");
        assert!(functions(&unknown, &["one"]).is_none());
    }
}
