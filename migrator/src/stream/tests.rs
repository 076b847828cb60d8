//! The migration stream against a model of who writes it.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;

use super::parser::Stage;
use super::record::RamBlock;
use super::{BlockNumber, Contents, Page, Parser, Record, Unknown, Writer, checks};

const RAM: u32 = 2;
const PAGE: usize = 4096;

/// A machine with a bank of RAM and a ROM.
fn machine() -> Vec<RamBlock> {
    [("pc.ram", 64 * PAGE), ("/rom@etc/acpi", 2 * PAGE)]
        .map(|(name, used)| RamBlock { name: name.as_bytes().into(), used_bytes: used as u64 })
        .into()
}

/// What QEMU would write.
#[derive(Default)]
struct Stream(BytesMut);

impl Stream {
    fn begun() -> Self {
        let mut stream = Self::default();
        stream.0.put_slice(b"QEVM\0\0\0\x03\x07");
        let machine = b"pc-q35-10.0";
        stream.0.put_u32(u32::try_from(machine.len()).unwrap());
        stream.0.put_slice(machine);
        stream
    }

    fn subsection(&mut self, name: &str, body: &[u8]) {
        self.0.put_u8(5);
        self.name(name.as_bytes());
        self.0.put_u32(1);
        self.0.put_slice(body);
    }

    fn name(&mut self, name: &[u8]) {
        self.0.put_u8(u8::try_from(name.len()).unwrap());
        self.0.put_slice(name);
    }

    fn command(&mut self, number: u16, data: &[u8]) {
        self.0.put_u8(8);
        self.0.put_u16(number);
        self.0.put_u16(u16::try_from(data.len()).unwrap());
        self.0.put_slice(data);
    }

    fn section(&mut self, kind: u8, id: u32) {
        self.0.put_u8(kind);
        self.0.put_u32(id);
    }

    /// The section of memory, with the list of the blocks.
    fn memory(&mut self, blocks: &[RamBlock]) {
        self.section(1, RAM);
        self.name(b"ram");
        self.0.put_u32(0);
        self.0.put_u32(4);
        self.0.put_u64(blocks.iter().map(|block| block.used_bytes).sum::<u64>() | 4);
        for block in blocks {
            self.name(&block.name);
            self.0.put_u64(block.used_bytes);
        }
        self.end();
    }

    /// The end of a section of memory.
    fn end(&mut self) {
        self.0.put_u64(0x10);
        self.footer();
    }

    fn footer(&mut self) {
        self.0.put_u8(0x7e);
        self.0.put_u32(RAM);
    }

    fn page(&mut self, block: &[u8], page: &Page) {
        let flags = match page.contents {
            Contents::Zero => 2,
            Contents::Data(_) => 8,
            Contents::Delta(_) => 0x40,
        };
        self.0.put_u64(page.offset_bytes | flags | if page.is_continued { 0x20 } else { 0 });
        if !page.is_continued {
            self.name(block);
        }
        match &page.contents {
            Contents::Zero => self.0.put_u8(0),
            Contents::Data(data) => self.0.put_slice(data),
            Contents::Delta(delta) => {
                self.0.put_u8(1);
                self.0.put_u16(u16::try_from(delta.len()).unwrap());
                self.0.put_slice(delta);
            }
        }
    }

    /// The machine stands, and these are its last pages and its devices.
    fn stopped(&mut self, blocks: &[RamBlock], pages: &[Page], devices: &[u8]) {
        self.command(11, &[]);
        self.section(3, RAM);
        pages.iter().for_each(|page| self.page(&blocks[usize::from(page.block.0)].name, page));
        self.end();
        self.0.put_slice(devices);
    }
}

fn page(block: u16, number: u64, is_continued: bool, contents: Contents) -> Page {
    Page { block: BlockNumber(block), offset_bytes: number * PAGE as u64, is_continued, contents }
}

fn data(seed: u8) -> Contents {
    Contents::Data((0..PAGE).map(|at| seed.wrapping_add((at / 7 % 251).to_le_bytes()[0])).collect())
}

fn pages_of(records: &[Record]) -> Vec<Page> {
    records
        .iter()
        .filter_map(|record| if let Record::Page(page) = record { Some(page.clone()) } else { None })
        .collect()
}

/// Pages as QEMU sends them: of a block that is named where it is another one than before, and also where not.
fn pages() -> impl Strategy<Value = Vec<Page>> {
    let contents = prop_oneof![
        2 => Just(Contents::Zero),
        3 => any::<u8>().prop_map(data),
        1 => vec(any::<u8>(), 0..PAGE).prop_map(|delta| Contents::Delta(delta.into())),
    ];
    vec((0u16..2, 0u64..64, any::<bool>(), contents), 1..40).prop_map(|pages| {
        let mut before = None;
        pages
            .into_iter()
            .map(|(block, number, is_named, contents)| {
                let is_continued = before == Some(block) && !is_named;
                before = Some(block);
                page(block, if block == 1 { number % 2 } else { number }, is_continued, contents)
            })
            .collect()
    })
}

/// A whole stream, the pages in it, and where its devices begin.
fn migrations() -> impl Strategy<Value = (Vec<u8>, Vec<Page>, usize)> {
    (pages(), vec(any::<usize>(), 0..4), any::<bool>(), vec(any::<u8>(), 0..300)).prop_map(
        |(pages, cuts, has_uuid, devices)| {
            let blocks = machine();
            let mut stream = Stream::begun();
            if has_uuid {
                stream.subsection("configuration/uuid", &[7; 16]);
                stream.subsection("configuration/capabilities", &[0; 4]);
            }
            stream.command(1, &[]);
            stream.command(2, &[0, 0, 0, 1]);
            stream.memory(&blocks);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % pages.len()).chain([0, pages.len()]).collect();
            cuts.sort_unstable();
            let parts: Vec<_> = cuts.windows(2).map(|cut| &pages[cut[0]..cut[1]]).collect();
            let (last, parts) = parts.split_last().expect("two cuts at least");
            for part in parts {
                stream.section(2, RAM);
                part.iter().for_each(|page| stream.page(&blocks[usize::from(page.block.0)].name, page));
                stream.end();
            }
            stream.stopped(&blocks, last, &[]);
            let devices_at = stream.0.len();
            stream.0.put_slice(&devices);
            (stream.0.to_vec(), pages, devices_at)
        },
    )
}

proptest! {
    #[test]
    fn what_is_parsed_is_what_was_written_however_it_is_cut((stream, pages, devices_at) in migrations(), piece in 1usize..10_000) {
        let records = checks::identity(&stream, piece);
        prop_assert_eq!(pages_of(&records), pages);
        let behind = stream.len() - devices_at;
        let opaque = |record: &Record| if let Record::Verbatim(bytes) = record { bytes.len() } else { 0 };
        let last: usize = records.iter().rev().map(opaque).take_while(|length| *length > 0).sum();
        prop_assert!(last >= behind, "the devices pass through");
    }

    #[test]
    fn a_stream_that_ends_anywhere_is_still_the_same((stream, _, _) in migrations(), end in any::<usize>(), piece in 1usize..5_000) {
        checks::identity(&stream[..end % stream.len()], piece);
    }

    #[test]
    fn a_damaged_stream_is_still_the_same((mut stream, _, _) in migrations(), at in any::<usize>(), bit in 0u8..8) {
        let at = at % stream.len();
        stream[at] ^= 1 << bit;
        checks::identity(&stream, 1_000);
    }
}

/// Parses all of it; how far it came, and why not further.
fn parsed(stream: &[u8]) -> (Stage, Option<Unknown>) {
    checks::identity(stream, 100);
    let (mut parser, mut buffer) = (Parser::new(), BytesMut::from(stream));
    while parser.next(&mut buffer).is_some() {}
    (parser.stage(), parser.unknown().cloned())
}

#[test]
fn the_stages_of_a_migration_are_told() {
    let (mut stream, blocks) = (Stream::begun(), machine());
    assert_eq!(parsed(&stream.0), (Stage::Beginning, None));
    stream.memory(&blocks);
    assert_eq!(parsed(&stream.0), (Stage::Memory, None));
    stream.stopped(&blocks, &[page(0, 3, false, data(1))], b"");
    assert_eq!(parsed(&stream.0), (Stage::Devices, None));
    let stopped = stream.0.len() - 5;
    assert_eq!(parsed(&stream.0[..stopped]), (Stage::SwitchingOver, None), "its footer is to come");
    stream.0.put_slice(b"\x04 anything at all");
    assert_eq!(parsed(&stream.0), (Stage::Devices, None));
}

#[test]
fn a_machine_without_footers_or_with_larger_pages_is_understood() {
    let mut stream = Stream::begun();
    stream.subsection("configuration/target-page-bits", &[0, 0, 0, 16]);
    let blocks = [RamBlock { name: b"mach-virt.ram"[..].into(), used_bytes: 4 << 16 }];
    stream.memory(&blocks);
    let large = Page { contents: Contents::Data(Bytes::from(vec![5; 1 << 16])), ..page(0, 16, false, Contents::Zero) };
    stream.0.truncate(stream.0.len() - 5);
    stream.section(3, RAM);
    stream.page(&blocks[0].name, &large);
    stream.0.put_u64(0x10);
    stream.0.put_u8(4);
    assert_eq!(parsed(&stream.0), (Stage::Devices, None));
    assert_eq!(pages_of(&checks::identity(&stream.0, 999)), [large]);
}

#[test]
fn what_is_not_understood_is_named_and_passes_through() {
    let begin = |more: &dyn Fn(&mut Stream)| {
        let mut stream = Stream::begun();
        more(&mut stream);
        stream.0.put_slice(&[0x55; 100]);
        parsed(&stream.0).1.expect("something unknown").to_string()
    };
    let in_memory = |more: &dyn Fn(&mut Stream)| {
        begin(&|stream| {
            stream.memory(&machine());
            stream.section(2, RAM);
            more(stream);
        })
    };
    assert_eq!(parsed(b"GET / HTTP/1.1").1, Some(Unknown::Beginning));
    assert_eq!(
        begin(&|stream| stream.subsection("configuration/colour", &[])),
        "its configuration has 'configuration/colour'"
    );
    assert_eq!(begin(&|stream| stream.command(3, &[0; 16])), "command 3");
    assert_eq!(begin(&|_| ()), "a record of type 0x55");
    let other = begin(&|stream| {
        stream.section(1, 9);
        stream.name(b"dirty-bitmap");
        stream.0.put_u64(1);
    });
    assert_eq!(other, "a section 'dirty-bitmap'");
    assert_eq!(begin(&|stream| stream.section(2, 9)), "a part of section 9, which has not begun");
    assert_eq!(in_memory(&|stream| stream.0.put_u64(0x200)), "a page with flags 0x200");
    assert_eq!(in_memory(&|stream| stream.0.put_u64(0x28)), "a page of no block");
    let beyond = page(1, 2, false, Contents::Zero);
    assert_eq!(in_memory(&|stream| stream.page(b"/rom@etc/acpi", &beyond)), "a page at 8192 of block '/rom@etc/acpi'");
    assert_eq!(in_memory(&|stream| stream.page(b"vga\xff", &beyond)), "a page at 8192 of block 'vga\\xff'");
    let twice = [machine(), machine()].concat();
    let total_bytes = twice.iter().map(|block| block.used_bytes).sum::<u64>();
    assert_eq!(begin(&|stream| stream.memory(&twice)), Unknown::Blocks { total_bytes }.to_string());
}

#[test]
fn what_no_parser_has_made_is_not_written() {
    let blocks = machine();
    let mut stream = Stream::begun();
    stream.memory(&blocks);
    let list = checks::identity(&stream.0, 1_000).into_iter().find(|record| matches!(record, Record::Blocks(_)));
    let (mut writer, mut out) = (Writer::new(), Vec::new());
    let mut write = |page: Page| writer.write(&Record::Page(page), &mut out).expect_err("it is refused").to_string();
    assert_eq!(write(page(0, 0, false, Contents::Zero)), "a page comes before the list of the blocks of memory");
    let mut writer = Writer::new();
    writer.write(&list.expect("a list"), &mut Vec::new()).unwrap();
    let mut out = Vec::new();
    let mut write = |page: Page| writer.write(&Record::Page(page), &mut out).expect_err("it is refused").to_string();
    assert_eq!(
        write(page(2, 0, false, Contents::Zero)),
        "a page is at 0 of block 2 of the machine's memory, and there is none"
    );
    assert_eq!(
        write(page(1, 2, false, Contents::Zero)),
        "a page is at 8192 of block 1 of the machine's memory, and there is none"
    );
    assert_eq!(
        write(page(0, 0, true, Contents::Zero)),
        "a page is to continue block 0, and does not follow a page of that"
    );
    assert_eq!(write(page(0, 0, false, Contents::Data(Bytes::from_static(b"short")))), "a page has 5 bytes");
    assert_eq!(write(page(0, 0, false, Contents::Delta(vec![0; PAGE + 1].into()))), "a page has 4097 bytes");
    assert!(out.is_empty());
}
