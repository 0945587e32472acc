//! Seals of recordings: a signed chain of what each file of a series was when it was closed.
//!
//! Beside the files of a series there is `SERIES.seal`, with a line of JSON for each. Its `root` is that of a Merkle tree of the
//! file's mebibytes, its `chain` a hash of the chain before, the name, the length and the root, and its `signature` that of
//! the chain by Ed25519. So a file that was changed, removed, or put in cannot be hidden by whoever has not got the key.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::sink::Outcome;

/// The bytes of a leaf of a file's tree.
const LEAF: usize = 1 << 20;

type Hash = [u8; 32];

/// A file, sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Seal {
    file: String,
    bytes: u64,
    root: String,
    chain: String,
    signature: String,
}

/// A file that contradicts the seals of its series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) file: String,
    pub(crate) why: &'static str,
}

/// A key that signs: 32 bytes of a file, as hexadecimal digits.
pub(crate) struct Key(Ed25519KeyPair);

impl Key {
    /// Makes a key, in a file of its own that its user alone can read. Returns the public half.
    pub(crate) fn make(path: &Path) -> Outcome<String> {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| "the system has no random numbers")?;
        let key = Self::of(&seed)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let written = file.and_then(|mut file| writeln!(file, "{}", hex(&seed)));
        written.map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(key.public())
    }

    pub(crate) fn read(path: &Path) -> Outcome<Self> {
        let text =
            fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let seed = bytes::<32>(text.trim());
        Self::of(&seed.ok_or_else(|| {
            format!("{}: no key; `ringtap archive key FILE` makes one", path.display())
        })?)
    }

    fn of(seed: &[u8; 32]) -> Outcome<Self> {
        Ok(Self(Ed25519KeyPair::from_seed_unchecked(seed).map_err(|error| error.to_string())?))
    }

    pub(crate) fn public(&self) -> String {
        hex(self.0.public_key().as_ref())
    }
}

/// Seals the files of a series that are not sealed yet, in their order. Returns how many.
pub(crate) fn seal(directory: &Path, series: &str, files: &[PathBuf], key: &Key) -> Outcome<usize> {
    let path = path_of(directory, series);
    let seals = read(&path)?;
    let mut chain = seals.last().map_or(Ok([0; 32]), |last| hash_of(&last.chain))?;
    let (mut text, mut count) = (String::new(), 0);
    for file in files {
        let name = name_of(file);
        if seals.iter().any(|seal| seal.file == name) {
            continue;
        }
        let (bytes, root) = tree(file)?;
        chain = link(&chain, &name, bytes, &root);
        let signature = hex(key.0.sign(&chain).as_ref());
        let seal = Seal { file: name, bytes, root: hex(&root), chain: hex(&chain), signature };
        text += &serde_json::to_string(&seal)?;
        text.push('\n');
        count += 1;
    }
    let written = OpenOptions::new().append(true).create(true).open(&path);
    let written = written.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(count)
}

/// Returns what is wrong with a series: seals that are not of this key, files that are not as they were sealed, and those that
/// are in the middle of it without a seal, or gone from there. The oldest files may be gone, which retention takes.
pub(crate) fn check(
    directory: &Path,
    series: &str,
    files: &[PathBuf],
    public: &str,
) -> Outcome<Vec<Broken>> {
    let public = bytes::<32>(public).ok_or("a public key has 64 hexadecimal digits")?;
    let public = UnparsedPublicKey::new(&ED25519, public);
    let seals = read(&path_of(directory, series))?;
    let there: BTreeMap<String, &PathBuf> =
        files.iter().map(|file| (name_of(file), file)).collect();
    let (mut broken, mut chain, mut is_first) = (Vec::new(), [0; 32], true);
    let mut tell = |file: &str, why| broken.push(Broken { file: file.to_owned(), why });
    for seal in &seals {
        let root = hash_of(&seal.root)?;
        let next = link(&chain, &seal.file, seal.bytes, &root);
        let signature = bytes::<64>(&seal.signature).unwrap_or([0; 64]);
        if hex(&next) != seal.chain || public.verify(&next, &signature).is_err() {
            tell(&seal.file, "its seal is not of this key, or is not where it was");
        }
        chain = hash_of(&seal.chain)?;
        match there.get(&seal.file) {
            None if is_first => {}
            None => tell(&seal.file, "it was sealed, and is gone"),
            Some(file) => {
                is_first = false;
                if tree(file)? != (seal.bytes, root) {
                    tell(&seal.file, "it is not what was sealed");
                }
            }
        }
    }
    for name in there.keys() {
        if !seals.iter().any(|seal| seal.file == *name) {
            tell(name, "it is not sealed");
        }
    }
    Ok(broken)
}

fn path_of(directory: &Path, series: &str) -> PathBuf {
    directory.join(format!("{series}.seal"))
}

fn name_of(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The seals of a series; none if there is no file of them.
fn read(path: &Path) -> Outcome<Vec<Seal>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("{}: {error}", path.display()).into()),
    };
    let parsed: Result<Vec<Seal>, _> = text.lines().map(serde_json::from_str).collect();
    parsed.map_err(|error| format!("{}: no seals: {error}", path.display()).into())
}

/// The hash that seals a file behind those before it.
fn link(before: &Hash, name: &str, bytes: u64, root: &Hash) -> Hash {
    let length = (name.len() as u64).to_le_bytes();
    hash(&[&before[..], &length, name.as_bytes(), &bytes.to_le_bytes(), &root[..]])
}

/// The length of a file, and the root of its tree: leaves and nodes are hashed apart, and a node without a neighbour is
/// handed on.
fn tree(path: &Path) -> Outcome<(u64, Hash)> {
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut file = File::open(path).map_err(named)?;
    let (mut length, mut row, mut leaf) = (0, Vec::new(), Vec::with_capacity(LEAF));
    loop {
        leaf.clear();
        let read =
            Read::by_ref(&mut file).take(LEAF as u64).read_to_end(&mut leaf).map_err(named)?;
        if read == 0 {
            break;
        }
        length += read as u64;
        row.push(hash(&[&[0], &leaf]));
    }
    while row.len() > 1 {
        let node = |pair: &[Hash]| match pair {
            [left, right] => hash(&[&[1], &left[..], &right[..]]),
            others => others[0],
        };
        row = row.chunks(2).map(node).collect();
    }
    Ok((length, row.pop().unwrap_or_else(|| hash(&[&[0]]))))
}

fn hash(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

fn hash_of(text: &str) -> Outcome<Hash> {
    bytes(text).ok_or_else(|| "a seal without a hash".into())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads hexadecimal digits.
fn bytes<const LEN: usize>(text: &str) -> Option<[u8; LEN]> {
    let mut bytes = [0; LEN];
    if text.len() != 2 * LEN || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use ringtap_lab::Directory;

    use super::*;

    /// Three files of a series, sealed one after another.
    fn sealed(directory: &Directory) -> (Vec<PathBuf>, Key, String) {
        let at = |name: &str| directory.path().join(name);
        let public = Key::make(&at("key")).unwrap();
        let key = Key::read(&at("key")).unwrap();
        assert_eq!(key.public(), public);
        let files: Vec<PathBuf> = (1..=3)
            .map(|number| {
                let file = at(&format!("p_0000{number}.pcapng"));
                fs::write(&file, vec![number; number as usize * LEAF + 5]).unwrap();
                file
            })
            .collect();
        for end in 1..=3 {
            assert_eq!(seal(directory.path(), "p", &files[..end], &key).unwrap(), 1);
        }
        assert_eq!(seal(directory.path(), "p", &files, &key).unwrap(), 0);
        (files, key, public)
    }

    #[test]
    fn what_was_changed_removed_or_put_in_is_found() {
        let directory = Directory::new();
        let (files, _, public) = sealed(&directory);
        let at = directory.path();
        let why = |files: &[PathBuf], public: &str| -> Vec<String> {
            let broken = check(at, "p", files, public).unwrap();
            broken.into_iter().map(|broken| format!("{} {}", broken.file, broken.why)).collect()
        };
        assert_eq!(why(&files, &public), Vec::<String>::new());
        // The oldest may be gone, others not.
        assert_eq!(why(&files[1..], &public), Vec::<String>::new());
        let without = [files[0].clone(), files[2].clone()];
        assert_eq!(why(&without, &public), ["p_00002.pcapng it was sealed, and is gone"]);
        let foreign = at.join("p_00004.pcapng");
        fs::write(&foreign, "x").unwrap();
        let more = [&files[..], &[foreign]].concat();
        assert_eq!(why(&more, &public), ["p_00004.pcapng it is not sealed"]);
        let other = Key::make(&at.join("other")).unwrap();
        assert_eq!(why(&files, &other).len(), 3);

        let seals = fs::read_to_string(at.join("p.seal")).unwrap();
        let lines: Vec<&str> = seals.lines().collect();
        // A seal that is taken out breaks the one behind it, and leaves its file without.
        fs::write(at.join("p.seal"), [lines[0], lines[2]].join("\n")).unwrap();
        let told = why(&files, &public);
        assert!(told.len() == 2 && told[0].contains("00003") && told[1].contains("not sealed"));
        fs::write(at.join("p.seal"), &seals).unwrap();
        let mut bytes = fs::read(&files[1]).unwrap();
        bytes[LEAF + 7] ^= 1;
        fs::write(&files[1], bytes).unwrap();
        assert_eq!(why(&files, &public), ["p_00002.pcapng it is not what was sealed"]);
    }

    #[test]
    fn keys_and_seals_that_are_none_are_refused() {
        let directory = Directory::new();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("key"), "not a key").unwrap();
        assert!(Key::read(&at("key")).is_err() && Key::make(&at("key")).is_err());
        fs::write(at("p.seal"), "{}").unwrap();
        assert!(check(directory.path(), "p", &[], &"0".repeat(64)).is_err());
        assert!(check(directory.path(), "q", &[], "12").is_err());
        assert_eq!(bytes::<2>("0aFf"), Some([10, 255]));
        assert_eq!((bytes::<2>("0aF"), bytes::<2>("éa"), bytes::<2>("0ag0")), (None, None, None));
    }
}
