//! The command line, taken apart: what all commands have in common.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use lexopt::prelude::*;

use super::Exit;

/// The arguments of one command.
pub(crate) struct Arguments {
    parser: lexopt::Parser,
    operands: Vec<OsString>,
    /// Whether `--json` was among the options read so far.
    pub(crate) json: bool,
}

impl Arguments {
    /// The name of the command, or the option in its place, and the arguments that follow.
    pub(crate) fn from_env() -> Result<(String, Arguments), Exit> {
        let mut parser = lexopt::Parser::from_env();
        let name = match parser.next()? {
            Some(Short('h') | Long("help")) => "--help".into(),
            Some(Short('V') | Long("version")) => "--version".into(),
            Some(Value(name)) => name.string()?,
            Some(other) => return Err(other.unexpected().into()),
            None => return Err(Exit::Usage("no command given".into())),
        };
        Ok((name, Arguments { parser, operands: Vec::new(), json: false }))
    }

    /// The name of the next option that only this command may know.
    pub(crate) fn option(&mut self) -> Result<Option<String>, Exit> {
        while let Some(argument) = self.parser.next()? {
            match argument {
                Short('h') | Long("help") => return Err(Exit::Help),
                Long("json") => self.json = true,
                Short('o') => return Ok(Some("output".to_owned())),
                Long(name) => return Ok(Some(name.to_owned())),
                Value(operand) => self.operands.push(operand),
                other @ Short(_) => return Err(other.unexpected().into()),
            }
        }
        Ok(None)
    }

    /// The error for an option that the command does not know.
    pub(crate) fn unknown<T>(&self, option: &str) -> Result<T, Exit> {
        Err(Exit::Usage(format!("invalid option '--{option}'")))
    }

    /// The value of the option just read.
    pub(crate) fn value<T>(&mut self) -> Result<T, Exit>
    where
        T: FromStr,
        T::Err: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Ok(self.parser.value()?.parse()?)
    }

    /// The path that is the value of the option just read.
    pub(crate) fn path(&mut self) -> Result<PathBuf, Exit> {
        Ok(self.parser.value()?.into())
    }

    /// The operands as paths, exactly `N`. To be called when there are no more options.
    pub(crate) fn operands<const N: usize>(&self) -> Result<[&Path; N], Exit> {
        let paths: Vec<&Path> = self.operands.iter().map(Path::new).collect();
        paths.try_into().map_err(|paths: Vec<_>| {
            let operands = if N == 1 { "operand" } else { "operands" };
            Exit::Usage(format!("{N} {operands} expected, {} given", paths.len()))
        })
    }

    /// The operands as paths, at least one.
    pub(crate) fn some_operands(&self) -> Result<Vec<&Path>, Exit> {
        if self.operands.is_empty() {
            return Err(Exit::Usage("at least one operand expected".into()));
        }
        Ok(self.operands.iter().map(Path::new).collect())
    }

    /// All that follows, as texts.
    pub(crate) fn operand_texts(mut self) -> Result<Vec<String>, Exit> {
        match self.option()? {
            Some(option) => self.unknown(&option),
            None => Ok(self.operands.into_iter().map(|o| o.string()).collect::<Result<_, _>>()?),
        }
    }
}
