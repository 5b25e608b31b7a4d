//! The user that may open a stopped store: the one whose server uses it.
//!
//! Owns the comparison of users. Never changes a file. The reason: whoever opens a database creates
//! files in it, and the server of another user cannot read them.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::base::failure::Failure;
use crate::store::folder::Folder;

/// The users that the machine knows.
const PASSWD: &str = "/etc/passwd";
/// ID of root.
const ROOT: u32 = 0;

/// Checks that a store belongs to this user. A folder that does not exist belongs to every user.
///
/// # Errors
/// The store belongs to another user, or the folder cannot be read.
pub fn check(path: &Path, user: u32) -> Result<(), Failure> {
    let owner = owner(path).map_err(|error| {
        let cause = format!("cannot read {}: {error}", path.display());
        Failure::new(cause, "run the command as the user of the server")
    })?;
    match owner {
        Some(owner) if owner != user => {
            let passwd = fs::read_to_string(PASSWD).unwrap_or_default();
            Err(foreign(path, (owner, user), &passwd))
        }
        _ => Ok(()),
    }
}

/// The user to whom the store in a folder belongs.
fn owner(path: &Path) -> io::Result<Option<u32>> {
    let of = |path: &Path| match fs::metadata(path) {
        Ok(found) => Ok(Some(found.uid())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    // The folder can be a volume that belongs to root; the server creates the database in it.
    match of(&Folder::new(path.to_owned()).data()) {
        Ok(Some(owner)) => Ok(Some(owner)),
        Ok(None) => Ok(of(path)?.filter(|owner| *owner != ROOT)),
        Err(_) => of(path),
    }
}

fn foreign(path: &Path, (owner, user): (u32, u32), passwd: &str) -> Failure {
    let shown = |id| match name(id, passwd) {
        Some(name) => format!("user `{name}`"),
        None => format!("user {id}"),
    };
    let cause = format!(
        "the store in {} belongs to {}, and the command runs as {}: the server could not read the \
         files that it creates",
        path.display(),
        shown(owner),
        shown(user)
    );
    let name = name(owner, passwd).map_or_else(|| format!("'#{owner}'"), str::to_owned);
    Failure::new(cause, format!("run as that user: `sudo -u {name} drumline store ...`"))
}

/// The name of a user in the text of `/etc/passwd`.
fn name(id: u32, passwd: &str) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let found = fields.nth(1)?.parse::<u32>().ok()?;
        (found == id).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::sys;
    use crate::store::fjall_disk::tests::{folder as temporary, opened};

    #[test]
    fn a_store_belongs_to_the_user_that_created_its_database() {
        let folder = temporary();
        let path = folder.path().join("store");
        let own = sys::user();
        assert!(check(&path, own + 1).is_ok(), "it does not exist");
        drop(opened(&path));
        assert!(check(&path, own).is_ok());
        let refused = check(&path, own + 1).unwrap_err();
        assert!(refused.cause.contains(&path.display().to_string()), "{refused}");
        assert!(refused.cure.contains("sudo -u "), "{refused}");
    }

    #[test]
    fn an_empty_folder_of_root_may_be_a_volume_of_any_user() {
        let folder = temporary();
        let refused = check(folder.path(), sys::user() + 1);
        assert_eq!(refused.is_ok(), sys::user() == ROOT, "{refused:?}");
    }

    #[test]
    fn the_error_names_the_owner_and_the_command_that_becomes_it() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\ndrumline:x:997:996::/:/bin/false\nbad\n";
        let refused = foreign(Path::new("/s"), (997, 0), passwd);
        let cause =
            "the store in /s belongs to user `drumline`, and the command runs as user `root`";
        assert!(refused.cause.starts_with(cause), "{refused}");
        let cure = "run as that user: `sudo -u drumline drumline store ...`";
        assert_eq!(refused.cure, cure);
        let nameless = foreign(Path::new("/s"), (65532, 0), passwd);
        assert!(nameless.cause.contains("belongs to user 65532,"), "{nameless}");
        assert!(nameless.cure.contains("sudo -u '#65532' drumline"), "{nameless}");
    }
}
