//! A raw NBD client: it sends what it is told to, well-formed or not, and hears out whatever comes back.
//!
//! What comes back is checked against the protocol as it is read (the module [`reply`](crate::reply)): a reply of the
//! wrong style, to nobody's request or of the wrong length is an error of every test.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sterna_nbd_server::wire::{
    self, EXTENDED_REQUEST_MAGIC, INIT_PASSWD, OPTION_MAGIC, REQUEST_MAGIC, command, command_flag, info, option,
    option_reply,
};

use crate::reply::{Answer, OptionReply};

/// How long a client waits for what the server owes it, before the test fails. Far more than any answer takes.
pub const READ_LIMIT: Duration = Duration::from_secs(60);

/// Both flags that the server offers: fixed newstyle, and no zeroes.
pub const CLIENT_FLAGS: u32 = wire::client_flag::FIXED_NEWSTYLE | wire::client_flag::NO_ZEROES;

/// In which form requests and replies are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Compact requests, simple replies.
    Simple,
    /// Compact requests, structured replies.
    Structured,
    /// Extended headers both ways.
    Extended,
}

impl Style {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Simple, Self::Structured, Self::Extended];
}

/// A request, right or wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Flags of the command.
    pub flags: u16,
    /// The command.
    pub command: u16,
    /// The request's name.
    pub cookie: u64,
    /// Where.
    pub offset: u64,
    /// How many bytes; of the payload where there is one.
    pub length: u64,
    /// What follows the header.
    pub payload: Vec<u8>,
}

impl Request {
    /// A request without a payload.
    pub fn new(command: u16, offset: u64, length: u64) -> Self {
        Self { command, offset, length, ..Self::default() }
    }

    /// READ.
    pub fn read(offset: u64, length: u64) -> Self {
        Self::new(command::READ, offset, length)
    }

    /// WRITE.
    pub fn write(offset: u64, payload: Vec<u8>) -> Self {
        Self { payload: payload.clone(), ..Self::new(command::WRITE, offset, payload.len() as u64) }
    }

    /// FLUSH.
    pub fn flush() -> Self {
        Self::new(command::FLUSH, 0, 0)
    }

    /// BLOCK_STATUS.
    pub fn status(offset: u64, length: u64) -> Self {
        Self::new(command::BLOCK_STATUS, offset, length)
    }

    /// The same with these flags too.
    pub fn flags(mut self, flags: u16) -> Self {
        self.flags |= flags;
        self
    }

    /// The same under this name.
    pub fn cookie(mut self, cookie: u64) -> Self {
        self.cookie = cookie;
        self
    }

    /// The same with these bytes behind the header, whose length is that of the bytes.
    pub fn payload(mut self, payload: Vec<u8>) -> Self {
        self.length = payload.len() as u64;
        self.payload = payload;
        self
    }

    /// The bytes on the wire.
    ///
    /// # Panics
    /// The length is too long for a compact header.
    pub fn to_bytes(&self, style: Style) -> Vec<u8> {
        let extended = style == Style::Extended;
        let magic = if extended { EXTENDED_REQUEST_MAGIC } else { REQUEST_MAGIC };
        let mut bytes = magic.to_be_bytes().to_vec();
        bytes.extend(self.flags.to_be_bytes());
        bytes.extend(self.command.to_be_bytes());
        bytes.extend(self.cookie.to_be_bytes());
        bytes.extend(self.offset.to_be_bytes());
        if extended {
            bytes.extend(self.length.to_be_bytes());
        } else {
            bytes.extend(u32::try_from(self.length).expect("a length for a compact header").to_be_bytes());
        }
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}

/// An export as GO described it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its transmission flags.
    pub flags: u16,
    /// Whether its description says that it is in standby.
    pub is_standby: bool,
}

/// One connection.
pub struct Client<S> {
    pub(crate) link: S,
    pub(crate) style: Style,
    /// What was sent and not answered yet.
    pub(crate) outstanding: HashMap<u64, Request>,
}

impl<S: Read + Write> Client<S> {
    /// A client on a link that is past the greeting.
    pub fn over(link: S) -> Self {
        Self { link, style: Style::Simple, outstanding: HashMap::new() }
    }

    /// Reads the greeting, and answers it.
    ///
    /// # Errors
    /// It is no NBD server.
    pub fn greet(link: S) -> Result<Self> {
        Self::greet_with(link, CLIENT_FLAGS)
    }

    /// Reads the greeting, and answers it with these flags.
    ///
    /// # Errors
    /// It is no NBD server.
    pub fn greet_with(link: S, flags: u32) -> Result<Self> {
        let mut client = Self::over(link);
        let (magic, option) = (client.u64()?, client.u64()?);
        ensure!(magic == INIT_PASSWD && option == OPTION_MAGIC, "the greeting is {magic:#x} {option:#x}");
        let offered = client.bytes(2)?;
        ensure!(offered == [0, 3], "the handshake flags are {offered:?}");
        client.say(&flags.to_be_bytes())?;
        Ok(client)
    }

    /// The link.
    pub fn link(&self) -> &S {
        &self.link
    }

    /// Gives the link back, to go on with it in another way.
    pub fn into_link(self) -> S {
        self.link
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The server does not take them.
    pub fn say(&mut self, bytes: &[u8]) -> Result<()> {
        self.link.write_all(bytes).context("the server does not listen")?;
        Ok(self.link.flush()?)
    }

    /// Sends an option, and reads all replies to it.
    ///
    /// # Errors
    /// There is no last one.
    pub fn option(&mut self, option: u32, data: &[u8]) -> Result<Vec<OptionReply>> {
        self.say(&option_bytes(option, data))?;
        let mut replies = Vec::new();
        loop {
            let reply = self.option_reply()?;
            ensure!(reply.option == option, "a reply to option {}, not {option}", reply.option);
            let last = reply.is_last();
            replies.push(reply);
            if last {
                return Ok(replies);
            }
        }
    }

    /// Sends an option; the type of the last reply.
    ///
    /// # Errors
    /// There is none.
    pub fn outcome(&mut self, option: u32, data: &[u8]) -> Result<u32> {
        Ok(self.option(option, data)?.last().context("an option has a reply")?.kind)
    }

    /// Goes to the end of the handshake: the style, the contexts where there are any to choose, the export.
    ///
    /// # Errors
    /// The server refuses one of them.
    pub fn attach(&mut self, style: Style, contexts: &[&str], export: &str) -> Result<Described> {
        match style {
            Style::Simple => {}
            Style::Structured => self.agree(option::STRUCTURED_REPLY, &[])?,
            Style::Extended => self.agree(option::EXTENDED_HEADERS, &[])?,
        }
        if !contexts.is_empty() {
            self.agree(option::SET_META_CONTEXT, &meta_query(export, contexts))?;
        }
        self.go(style, export)
    }

    /// Chooses an export by GO; what follows is in this style.
    ///
    /// # Errors
    /// The server refuses.
    pub fn go(&mut self, style: Style, export: &str) -> Result<Described> {
        let replies = self.option(option::GO, &export_request(export, &[info::DESCRIPTION]))?;
        ensure!(replies.last().is_some_and(|reply| !reply.is_error()), "GO was refused: {replies:?}");
        self.style = style;
        described(&replies)
    }

    fn agree(&mut self, option: u32, data: &[u8]) -> Result<()> {
        match self.outcome(option, data)? {
            option_reply::ACK => Ok(()),
            kind => bail!("option {option} was answered with {kind:#x}"),
        }
    }

    /// What follows is in this style.
    pub fn assume(&mut self, style: Style) {
        self.style = style;
    }

    /// Sends a request; where extended headers ask for PAYLOAD_LEN, with it.
    ///
    /// # Errors
    /// The server does not take it.
    pub fn send(&mut self, request: Request) -> Result<()> {
        let says_so = self.style == Style::Extended && request.command == command::WRITE;
        let request = request.flags(if says_so { command_flag::PAYLOAD_LEN } else { 0 });
        self.send_as_it_is(request)
    }

    /// Sends a request with no flag but its own.
    ///
    /// # Errors
    /// The server does not take it.
    pub fn send_as_it_is(&mut self, request: Request) -> Result<()> {
        let bytes = request.to_bytes(self.style);
        self.expect(request);
        self.say(&bytes)
    }

    /// Takes a request for sent, because the test sends it in its own way.
    pub fn expect(&mut self, mut request: Request) {
        request.payload.clear();
        self.outstanding.insert(request.cookie, request);
    }

    /// Sends a request, and reads the reply, which has to be to this request.
    ///
    /// # Errors
    /// There is none.
    pub fn call(&mut self, request: Request) -> Result<Answer> {
        let cookie = request.cookie;
        self.send(request)?;
        let answer = self.answer()?;
        ensure!(answer.cookie == cookie, "a reply to request {}, not {cookie}", answer.cookie);
        Ok(answer)
    }

    /// Reads until the server closes the connection; what it said before that.
    ///
    /// # Errors
    /// It does not.
    pub fn until_closed(&mut self) -> Result<Vec<u8>> {
        let mut said = Vec::new();
        match self.link.read_to_end(&mut said) {
            Ok(_) => Ok(said),
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => Ok(said),
            Err(error) => Err(error).context("the server did not close the connection"),
        }
    }
}

impl Client<UnixStream> {
    /// Sends as much as the server takes before it stops reading; the rest.
    ///
    /// # Errors
    /// The server closes the connection.
    pub fn stuff<'a>(&self, mut bytes: &'a [u8]) -> Result<&'a [u8]> {
        self.link.set_nonblocking(true)?;
        let mut stalled = 0;
        while stalled < 50 && !bytes.is_empty() {
            match (&self.link).write(bytes) {
                Ok(written) => {
                    bytes = &bytes[written..];
                    stalled = 0;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    stalled += 1;
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.link.set_nonblocking(false)?;
        Ok(bytes)
    }
}

/// An option on the wire.
///
/// # Panics
/// The data is longer than 4 GiB.
pub fn option_bytes(option: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = OPTION_MAGIC.to_be_bytes().to_vec();
    bytes.extend(option.to_be_bytes());
    bytes.extend(length(data).to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// The data of INFO and GO.
///
/// # Panics
/// There are more than 65,535 requests.
pub fn export_request(export: &str, requests: &[u16]) -> Vec<u8> {
    let mut data = length(export.as_bytes()).to_be_bytes().to_vec();
    data.extend_from_slice(export.as_bytes());
    data.extend(u16::try_from(requests.len()).expect("a few requests").to_be_bytes());
    data.extend(requests.iter().flat_map(|request| request.to_be_bytes()));
    data
}

/// The data of LIST_META_CONTEXT and SET_META_CONTEXT.
pub fn meta_query(export: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = length(export.as_bytes()).to_be_bytes().to_vec();
    data.extend_from_slice(export.as_bytes());
    data.extend(u32::try_from(queries.len()).unwrap_or(u32::MAX).to_be_bytes());
    for query in queries {
        data.extend(length(query.as_bytes()).to_be_bytes());
        data.extend_from_slice(query.as_bytes());
    }
    data
}

/// What the replies to INFO or GO say of an export.
///
/// # Errors
/// They do not have size and flags exactly once.
pub fn described(replies: &[OptionReply]) -> Result<Described> {
    let about = |kind: u16| {
        let informs = replies.iter().filter(|reply| reply.kind == option_reply::INFO);
        informs.filter_map(move |reply| reply.data.strip_prefix(&kind.to_be_bytes()))
    };
    let is_standby = about(info::DESCRIPTION).any(|text| text.starts_with(b"standby"));
    let mut exports = about(info::EXPORT).filter_map(|rest| {
        let (size, flags) = rest.split_first_chunk()?;
        let (size_bytes, flags) = (u64::from_be_bytes(*size), u16::from_be_bytes(flags.try_into().ok()?));
        Some(Described { size_bytes, flags, is_standby })
    });
    match (exports.next(), exports.next()) {
        (Some(export), None) => Ok(export),
        _ => bail!("the export was not described once: {replies:?}"),
    }
}

fn length(data: &[u8]) -> u32 {
    u32::try_from(data.len()).expect("data of a test is short")
}
