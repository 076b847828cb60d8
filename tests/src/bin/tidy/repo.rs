//! The repository's files, as git sees them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// A text file.
pub(crate) struct File {
    /// Relative to the root, with `/` between its parts.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Every file that is tracked, or would be if it were added.
pub(crate) struct Repo {
    /// Where it lies.
    pub(crate) root: PathBuf,
    /// The text files, by path.
    pub(crate) files: Vec<File>,
    /// All files, the binary ones too.
    paths: BTreeSet<String>,
}

impl Repo {
    /// Reads the repository around the working directory.
    ///
    /// # Errors
    /// If git does not know it, or a file cannot be read.
    pub(crate) fn open() -> Result<Self> {
        let root = PathBuf::from(git(Path::new("."), &["rev-parse", "--show-toplevel"])?.trim_end());
        let listed = git(&root, &["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
        let mut repo = Self { root, files: Vec::new(), paths: BTreeSet::new() };
        for path in listed.split_terminator('\0') {
            repo.read(path)?;
        }
        Ok(repo)
    }

    /// A repository that exists only in a test.
    #[cfg(test)]
    pub(crate) fn with_files(files: &[(&str, &str)]) -> Self {
        let owned = |&(path, text): &(&str, &str)| File { path: path.to_owned(), text: text.to_owned() };
        Self {
            root: PathBuf::new(),
            files: files.iter().map(owned).collect(),
            paths: files.iter().map(|(path, _)| (*path).to_owned()).collect(),
        }
    }

    /// The text file at `path`.
    pub(crate) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The files whose path ends in `suffix`.
    pub(crate) fn files_ending<'a>(&'a self, suffix: &'a str) -> impl Iterator<Item = &'a File> {
        self.files.iter().filter(move |file| file.path.ends_with(suffix))
    }

    /// Whether `path` is a file or a directory of the repository.
    pub(crate) fn contains(&self, path: &str) -> bool {
        let directory = format!("{path}/");
        path.is_empty() || self.paths.contains(path) || self.paths.iter().any(|known| known.starts_with(&directory))
    }

    fn read(&mut self, path: &str) -> Result<()> {
        let full = self.root.join(path);
        // Listed, but deleted and not yet committed; or a symbolic link, whose target is listed itself.
        if !fs::symlink_metadata(&full).is_ok_and(|metadata| metadata.is_file()) {
            return Ok(());
        }
        let bytes = fs::read(&full).with_context(|| format!("cannot read {path}"))?;
        self.paths.insert(path.to_owned());
        if let Ok(text) = String::from_utf8(bytes)
            && !text.contains('\0')
        {
            self.files.push(File { path: path.to_owned(), text });
        }
        Ok(())
    }
}

fn git(directory: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new("git").arg("-C").arg(directory).args(arguments).output().context("cannot run git")?;
    ensure!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    String::from_utf8(output.stdout).context("git lists a path that is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_contained_when_a_file_in_them_is() {
        let repo = Repo::with_files(&[("docs/a.md", "")]);
        assert!(repo.contains("docs/a.md") && repo.contains("docs") && repo.contains(""));
        assert!(!repo.contains("doc") && !repo.contains("docs/a"));
    }
}
