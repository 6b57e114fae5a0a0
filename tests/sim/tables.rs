//! Blocks on disk as a node with Pebble and geth's ancient data has them, so that backups have that to prove themselves on.
//!
//! New blocks are appended to a write-ahead log (`000002.log`). A full log becomes a sorted table (`000004.sst`), which is
//! written once and later only removed; its blocks are then appended to the ancient data: `bodies` with an index, and
//! `hashes` with the digest of each. What is valid is recorded in `MANIFEST-000001`, which `CURRENT` names. Unlike the
//! plain layout this one forgives nothing: where files do not belong together, the data does not open.

use super::keccak::keccak256;
use super::store::Log;
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Blocks in a full write-ahead log, and so in a table.
const FULL: usize = 4;
/// Tables beyond this number make the oldest ancient.
const TABLES: usize = 3;
/// Items in a data file of the ancient data.
const ITEMS: usize = 8;
/// An entry of an index: the number of the data file, and the offset behind the item in it.
const ENTRY: usize = 6;

/// The blocks in the layout of Pebble.
pub(super) struct Tables {
    dir: PathBuf,
    manifest: File,
    wal: File,
    valid: Valid,
    /// The blocks in the write-ahead log.
    fresh: Vec<Vec<u8>>,
    bodies: Ancient,
    hashes: Ancient,
}

/// The state that the manifest records.
#[derive(Default)]
struct Valid {
    wal: u64,
    tables: VecDeque<u64>,
    ancient: usize,
    /// The highest number of a file.
    last: u64,
}

impl Tables {
    /// Opens the blocks in `dir`, which are returned as lines, or makes an empty database.
    pub(super) fn open(dir: &Path) -> io::Result<(Self, Vec<u8>)> {
        if !dir.join("CURRENT").exists() {
            found(dir)?;
        }
        let manifest = dir.join(fs::read_to_string(dir.join("CURRENT"))?.trim());
        let valid = Valid::read(&fs::read_to_string(&manifest)?)?;
        let ancient = dir.join("ancient").join("chain");
        fs::create_dir_all(&ancient)?;
        let bodies = Ancient::open(&ancient, "bodies", ["cdat", "cidx"], valid.ancient)?;
        let hashes = Ancient::open(&ancient, "hashes", ["rdat", "ridx"], valid.ancient)?;
        let mut text = Vec::new();
        for (body, hash) in bodies.read()?.into_iter().zip(hashes.read()?) {
            if keccak256(&body)[..] != hash {
                return Err(bad("an ancient block has another digest"));
            }
            text.extend(body);
        }
        for table in &valid.tables {
            text.extend(fs::read(file(dir, *table, "sst"))?);
        }
        let path = file(dir, valid.wal, "log");
        let written = fs::read(&path)?;
        let lines = written.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
        let fresh: Vec<Vec<u8>> = lines.map(<[u8]>::to_vec).collect();
        text.extend(fresh.concat());
        let append = |path: &Path| OpenOptions::new().append(true).open(path);
        let (manifest, wal) = (append(&manifest)?, append(&path)?);
        // A torn last line.
        wal.set_len(fresh.concat().len() as u64)?;
        Ok((Tables { dir: dir.to_owned(), manifest, wal, valid, fresh, bodies, hashes }, text))
    }

    /// Makes a table of the write-ahead log and begins another log.
    fn flush(&mut self) -> io::Result<()> {
        let (table, wal) = (self.valid.last + 1, self.valid.last + 2);
        fs::write(file(&self.dir, table, "sst"), self.fresh.concat())?;
        self.wal = File::create(file(&self.dir, wal, "log"))?;
        self.record(&format!("table {table} log {wal}"))?;
        fs::remove_file(file(&self.dir, self.valid.wal, "log"))?;
        self.fresh.clear();
        self.valid.tables.push_back(table);
        (self.valid.wal, self.valid.last) = (wal, wal);
        Ok(())
    }

    /// Makes the oldest table ancient.
    fn freeze(&mut self) -> io::Result<()> {
        let Some(table) = self.valid.tables.pop_front() else { return Ok(()) };
        let path = file(&self.dir, table, "sst");
        for line in fs::read(&path)?.split_inclusive(|byte| *byte == b'\n') {
            self.bodies.append(line)?;
            self.hashes.append(&keccak256(line))?;
        }
        self.valid.ancient = self.bodies.ends.len();
        self.record(&format!("gone {table} ancient {}", self.valid.ancient))?;
        fs::remove_file(path)
    }

    fn record(&mut self, edit: &str) -> io::Result<()> {
        self.manifest.write_all(format!("{edit}\n").as_bytes())
    }
}

impl Log for Tables {
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        self.wal.write_all(line)?;
        self.fresh.push(line.to_vec());
        if self.fresh.len() == FULL {
            self.flush()?;
        }
        if self.valid.tables.len() > TABLES { self.freeze() } else { Ok(()) }
    }

    /// Rare, so that everything is written anew.
    fn cut(&mut self, lines: usize) -> io::Result<()> {
        let (_, text) = Tables::open(&self.dir)?;
        let all: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        if lines >= all.len() {
            return Ok(());
        }
        fs::remove_file(self.dir.join("CURRENT"))?;
        let numbered = self.valid.tables.iter().map(|table| file(&self.dir, *table, "sst"));
        numbered.chain([file(&self.dir, self.valid.wal, "log")]).try_for_each(fs::remove_file)?;
        fs::remove_dir_all(self.dir.join("ancient"))?;
        *self = Tables::open(&self.dir)?.0;
        all[..lines].iter().try_for_each(|line| self.append(line))
    }
}

impl Valid {
    fn read(edits: &str) -> io::Result<Valid> {
        let mut valid = Valid::default();
        let numbers = |edit: &str| -> Option<Vec<u64>> {
            edit.split(' ').skip(1).step_by(2).map(|number| number.parse().ok()).collect()
        };
        for edit in edits.split_inclusive('\n').filter_map(|edit| edit.strip_suffix('\n')) {
            match (edit.split(' ').next(), numbers(edit).as_deref()) {
                (Some("log"), Some([wal])) => (valid.wal, valid.last) = (*wal, *wal + 1),
                (Some("table"), Some([table, wal])) => {
                    valid.tables.push_back(*table);
                    (valid.wal, valid.last) = (*wal, *wal);
                }
                (Some("gone"), Some([table, ancient])) if valid.tables.front() == Some(table) => {
                    valid.tables.pop_front();
                    valid.ancient = *ancient as usize;
                }
                _ => return Err(bad(&format!("the manifest has an edit {edit:?}"))),
            }
        }
        Ok(valid)
    }
}

/// Makes an empty database.
fn found(dir: &Path) -> io::Result<()> {
    fs::write(dir.join("MANIFEST-000001"), "log 2\n")?;
    File::create(file(dir, 2, "log"))?;
    fs::write(dir.join("OPTIONS-000003"), "[Options]\n  comparer=leveldb.BytewiseComparator\n")?;
    fs::write(dir.join("CURRENT.dbtmp"), "MANIFEST-000001\n")?;
    fs::rename(dir.join("CURRENT.dbtmp"), dir.join("CURRENT"))
}

fn file(dir: &Path, number: u64, kind: &str) -> PathBuf {
    dir.join(format!("{number:06}.{kind}"))
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// One table of the ancient data: data files and an index, all of which are only appended to.
struct Ancient {
    dir: PathBuf,
    name: &'static str,
    kind: &'static str,
    index: File,
    /// Of each item, the end in its data file.
    ends: Vec<u32>,
}

impl Ancient {
    /// Opens a table of which so many items are valid.
    fn open(
        dir: &Path,
        name: &'static str,
        [kind, index]: [&'static str; 2],
        items: usize,
    ) -> io::Result<Self> {
        let path = dir.join(format!("{name}.{index}"));
        let index = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut entries = vec![0; items * ENTRY];
        index.read_exact_at(&mut entries, 0)?;
        let end = |entry: &[u8]| u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]);
        let ends: Vec<u32> = entries.chunks(ENTRY).map(end).collect();
        // Items that were appended and not recorded.
        index.set_len(entries.len() as u64)?;
        let table = Ancient { dir: dir.to_owned(), name, kind, index, ends };
        table.data(items)?.set_len(table.begin(items).into())?;
        Ok(table)
    }

    /// The data file that an item is in, or will be.
    fn data(&self, item: usize) -> io::Result<File> {
        let path = self.dir.join(format!("{}.{:04}.{}", self.name, item / ITEMS, self.kind));
        OpenOptions::new().read(true).append(true).create(true).open(path)
    }

    /// The offset of an item in its data file.
    fn begin(&self, item: usize) -> u32 {
        if item.is_multiple_of(ITEMS) { 0 } else { self.ends[item - 1] }
    }

    fn append(&mut self, content: &[u8]) -> io::Result<()> {
        let item = self.ends.len();
        self.data(item)?.write_all(content)?;
        let end = self.begin(item) + content.len() as u32;
        self.ends.push(end);
        let mut entry = ((item / ITEMS) as u16).to_be_bytes().to_vec();
        entry.extend(end.to_be_bytes());
        self.index.write_all(&entry)
    }

    fn read(&self) -> io::Result<Vec<Vec<u8>>> {
        let read = |item: usize| {
            let mut content = vec![0; (self.ends[item] - self.begin(item)) as usize];
            self.data(item)?.read_exact_at(&mut content, self.begin(item).into())?;
            Ok(content)
        };
        (0..self.ends.len()).map(read).collect()
    }
}
