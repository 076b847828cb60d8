//! Random requests of any alignment to one disk, each of which is checked against an image in memory, byte by byte: what `fsx` is for
//! files (A. Tevanian, `fsx.c`, 1991), for a disk.

use std::io::{Read, Write};

use anyhow::{Result, ensure};
use sterna_nbd_server::wire::command;

use crate::client::{Client, Request};
use crate::random::Random;

/// A client, what the disk has to hold, and what it does next.
#[derive(Debug)]
pub struct Fsx {
    random: Random,
    image: Vec<u8>,
    /// What was asked for, and not acknowledged.
    pending: Option<Step>,
}

/// One request.
#[derive(Clone, Debug)]
enum Step {
    Read { at: u64, length: usize },
    Write { at: u64, data: Vec<u8> },
    Zero { at: u64, length: usize },
    Flush,
}

impl Fsx {
    /// Of a disk of `size_bytes` that holds zeroes.
    ///
    /// # Panics
    /// It does not fit into memory.
    pub fn new(seed: u64, size_bytes: u64) -> Self {
        let size = usize::try_from(size_bytes).expect("a small disk");
        Self { random: Random::new(seed), image: vec![0; size], pending: None }
    }

    /// Does one thing: what was not acknowledged before, or something new. The error number that it is answered with, if it is.
    ///
    /// # Errors
    /// It reads what was not written, or the connection ends.
    pub fn step<S: Read + Write>(&mut self, client: &mut Client<S>) -> Result<Option<u32>> {
        let step = self.pending.take().unwrap_or_else(|| self.draw());
        let request = match &step {
            Step::Read { at, length } => Request::read(*at, *length as u64),
            Step::Write { at, data } => Request::write(*at, data.clone()),
            Step::Zero { at, length } => Request::new(command::WRITE_ZEROES, *at, *length as u64),
            Step::Flush => Request::flush(),
        };
        let answer = client.call(request)?;
        if answer.error() != 0 {
            self.pending = Some(step);
            return Ok(Some(answer.error()));
        }
        match step {
            Step::Read { at, length } => self.check(at, length, &answer.data())?,
            Step::Write { at, data } => self.part(at, data.len()).copy_from_slice(&data),
            Step::Zero { at, length } => self.part(at, length).fill(0),
            Step::Flush => {}
        }
        Ok(None)
    }

    /// Reads all of the disk, but for what may have been written without an answer.
    ///
    /// # Errors
    /// It is not what it has to be, or the disk does not answer.
    pub fn check_all<S: Read + Write>(&self, client: &mut Client<S>) -> Result<()> {
        for at in (0..self.image.len()).step_by(READ_BYTES) {
            let length = READ_BYTES.min(self.image.len() - at);
            let answer = client.call(Request::read(at as u64, length as u64))?;
            ensure!(answer.error() == 0, "a read at {at} was answered with {}", answer.error());
            self.check(at as u64, length, &answer.data())?;
        }
        Ok(())
    }

    fn draw(&mut self) -> Step {
        let length = 1 + usize::try_from(self.random.below(MOST_BYTES)).unwrap_or(0);
        let at = self.random.below((self.image.len() - length) as u64);
        match self.random.below(10) {
            0..4 => Step::Read { at, length },
            4..8 => Step::Write { at, data: (0..length).map(|_| self.random.below(256).to_le_bytes()[0]).collect() },
            8 => Step::Zero { at, length },
            _ => Step::Flush,
        }
    }

    fn part(&mut self, at: u64, length: usize) -> &mut [u8] {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        &mut self.image[at..at + length]
    }

    fn check(&self, at: u64, length: usize, found: &[u8]) -> Result<()> {
        ensure!(found.len() == length, "{} bytes for {length}", found.len());
        let first = usize::try_from(at)?;
        let uncertain = match &self.pending {
            Some(Step::Write { at, data }) => *at..*at + data.len() as u64,
            Some(Step::Zero { at, length }) => *at..*at + *length as u64,
            _ => 0..0,
        };
        let differs = (first..)
            .zip(found)
            .find(|(place, byte)| self.image[*place] != **byte && !uncertain.contains(&(*place as u64)));
        match differs {
            None => Ok(()),
            Some((place, byte)) => anyhow::bail!("byte {place} is {byte}, and {} was written", self.image[place]),
        }
    }
}

const MOST_BYTES: u64 = 64 << 10;
const READ_BYTES: usize = 1 << 20;
