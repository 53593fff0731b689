//! The command line, taken apart: what all commands have in common.

use std::ffi::OsString;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use lexopt::prelude::*;

use super::Exit;

/// The arguments of one command.
pub(crate) struct Arguments {
    parser: lexopt::Parser,
    operands: Vec<OsString>,
    /// The name of the option read last.
    last: String,
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
        let last = String::new();
        Ok((name, Arguments { parser, operands: Vec::new(), last, json: false }))
    }

    /// The name of the next option that only this command may know.
    pub(crate) fn option(&mut self) -> Result<Option<String>, Exit> {
        while let Some(argument) = self.parser.next()? {
            let name = match argument {
                Short('h') | Long("help") => return Err(Exit::Help),
                Long("json") => {
                    self.json = true;
                    continue;
                }
                Value(operand) => {
                    self.operands.push(operand);
                    continue;
                }
                Short('o') => "output".to_owned(),
                Long(name) => name.to_owned(),
                other @ Short(_) => return Err(other.unexpected().into()),
            };
            self.last.clone_from(&name);
            return Ok(Some(name));
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
        let text = self.parser.value()?;
        text.parse().map_err(|error| match error {
            lexopt::Error::ParsingFailed { error, .. } => {
                self.refused(text.to_string_lossy(), error)
            }
            other => other.into(),
        })
    }

    /// The error for a value of the option just read that cannot be used.
    pub(crate) fn refused(&self, value: impl Display, reason: impl Display) -> Exit {
        Exit::Usage(format!("--{} {value}: {reason}", self.last))
    }

    /// The path that is the value of the option just read.
    pub(crate) fn path(&mut self) -> Result<PathBuf, Exit> {
        Ok(self.parser.value()?.into())
    }

    /// The operands as paths, one for each of these names. To be called when there are no more
    /// options.
    pub(crate) fn operands<const N: usize>(&self, names: [&str; N]) -> Result<[&Path; N], Exit> {
        let (first, rest) = self.some_operands(names)?;
        match rest.first() {
            None => Ok(first),
            Some(surplus) => {
                Err(Exit::Usage(format!("{} is one operand too many", surplus.display())))
            }
        }
    }

    /// The operands as paths: one for each of these names, and those that follow.
    pub(crate) fn some_operands<const N: usize>(
        &self,
        names: [&str; N],
    ) -> Result<([&Path; N], Vec<&Path>), Exit> {
        let mut paths: Vec<&Path> = self.operands.iter().map(Path::new).collect();
        if let Some(missing) = names.get(paths.len()) {
            return Err(Exit::Usage(format!("missing {missing}")));
        }
        let rest = paths.split_off(N);
        Ok((paths.try_into().expect("N are left"), rest))
    }

    /// All that follows, as texts.
    pub(crate) fn operand_texts(mut self) -> Result<Vec<String>, Exit> {
        match self.option()? {
            Some(option) => self.unknown(&option),
            None => Ok(self.operands.into_iter().map(|o| o.string()).collect::<Result<_, _>>()?),
        }
    }
}
