//! The commands `drumline store check | stats | export | import` on the store of a real server:
//! exit codes, and clients that recover from an import.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use drumline::store::tools::archive::{ArchiveReader, ArchiveWriter, Entry};
use serde_json::{Value, json};

use crate::common::{Client, Server, command};
use crate::durable::{history, kill, publish, server, subscribe};

/// Runs `drumline store` on the store in a folder. Returns its exit code and what it says.
fn run(folder: &Path, name: &str, file: Option<&Path>) -> (i32, String) {
    let mut command = command();
    command.args(["store", name, "--path"]).arg(folder.join("store")).args(file);
    let output = command.current_dir(folder).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

/// Runs a command that ends with this exit code and says this.
fn expect(folder: &Path, (name, file): (&str, Option<&Path>), code: i32, wanted: &str) {
    let (found, said) = run(folder, name, file);
    assert_eq!(found, code, "{name}: {said}");
    assert!(said.contains(wanted), "{name}: {said}");
}

const CHECK: (&str, Option<&Path>) = ("check", None);
const STATS: (&str, Option<&Path>) = ("stats", None);
const COUNTED: &str = "streams:          1\npublications:     3\n";

/// A server with three publications in the channel `a`, of which the first has a key. Returns the
/// epoch, too.
fn filled(folder: &Path) -> (Server, String) {
    let server = server(folder, &[]);
    for nth in 1..=3 {
        let key = if nth == 1 { "key" } else { "" };
        assert_eq!(publish(&server, "a", nth, key)["offset"], nth);
    }
    let epoch = history(&server, "a").1;
    (server, epoch)
}

fn stop(mut server: Server) {
    server.signal_stop();
    assert!(server.wait().success());
}

#[test]
fn a_command_says_what_it_removes_from_a_torn_journal() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    kill(filled(folder).0);
    let journal = folder.join("store/data/0.jnl");
    let mut bytes = fs::read(&journal).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    bytes[end - 20..end].fill(0);
    fs::write(&journal, bytes).unwrap();
    expect(folder, CHECK, 0, "0.jnl: removed ");
    let (code, said) = run(folder, "check", None);
    assert!(code == 0 && !said.contains("removed"), "{said}");
    assert!(said.contains("publications:     2\n"), "{said}");
}

#[test]
fn commands_ask_a_running_server_and_read_a_stopped_store() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for command in [CHECK, STATS] {
        expect(folder, command, 2, "has no store");
    }
    let (first, _) = filled(folder);
    let export = folder.join("export");
    let run_all = |export: &Path, exported: &str| {
        expect(folder, CHECK, 0, &format!("{COUNTED}remains:"));
        expect(folder, CHECK, 0, "no damage was found\n");
        expect(folder, STATS, 0, COUNTED);
        expect(folder, ("export", Some(export)), 0, exported);
        expect(folder, ("export", Some(export)), 2, "exists");
    };
    let exported = "exported 1 streams, 3 publications, 1 idempotency keys\n";
    run_all(&export, exported);
    assert_eq!(fs::metadata(&export).unwrap().permissions().mode() & 0o777, 0o600);
    expect(folder, ("import", Some(&export)), 2, "in use");
    kill(first);
    let stopped = folder.join("stopped");
    run_all(&stopped, exported);
    expect(folder, ("import", Some(&export)), 2, "channel `a` already");
    expect(folder, ("import", Some(&folder.join("none"))), 2, "cannot read");
    // A server goes on with the store that the commands opened.
    let second = server(folder, &[]);
    assert_eq!(publish(&second, "a", 4, "")["offset"], 4);
    stop(second);
}

/// Writes an export without the publication at an offset.
fn export_without(from: &Path, offset: u64, to: &Path) {
    let mut reader = ArchiveReader::new(fs::File::open(from).unwrap()).unwrap();
    let mut writer = ArchiveWriter::new(fs::File::create(to).unwrap()).unwrap();
    while let Some(entry) = reader.next_entry().unwrap() {
        let is_left_out = matches!(&entry, Entry::Publication(one) if one.offset == offset);
        if !is_left_out {
            writer.write(entry).unwrap();
        }
    }
    writer.finish().unwrap();
}

#[test]
fn a_check_that_finds_damage_exits_with_1_also_on_a_running_server() {
    let folder = tempfile::tempdir().unwrap();
    let [old, new] = ["old", "new"].map(|name| folder.path().join(name));
    fs::create_dir(&new).unwrap();
    let (first, _) = filled(&old);
    let [whole, damaged] = ["whole", "damaged"].map(|name| folder.path().join(name));
    expect(&old, ("export", Some(&whole)), 0, "exported 1 streams");
    stop(first);
    export_without(&whole, 2, &damaged);
    expect(&new, ("import", Some(&damaged)), 0, "imported 1 streams, 2 publications");
    let is_found = || {
        expect(&new, CHECK, 1, "fault: a: offset 3 follows where 2 is expected\n");
        expect(&new, CHECK, 1, "damage was found: ");
    };
    is_found();
    let second = server(&new, &[]);
    is_found();
    expect(&new, STATS, 0, "publications:     2\n");
    drop(second);
    let bytes = fs::read(&whole).unwrap();
    fs::write(&damaged, &bytes[..bytes.len() - 1]).unwrap();
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    expect(&empty, ("import", Some(&damaged)), 2, "ends early");
    assert!(!empty.join("store").exists());
}

#[test]
fn a_check_that_cannot_read_a_table_names_the_damage_and_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    stop(filled(folder).0);
    expect(folder, CHECK, 0, COUNTED);
    let mut tables = fs::read_dir(folder.join("store/data/keyspaces/2/tables")).unwrap();
    let table = tables.next().expect("a stop writes tables").unwrap().path();
    let mut bytes = fs::read(&table).unwrap();
    bytes[60] ^= 1;
    fs::write(&table, bytes).unwrap();
    for command in [CHECK, STATS, ("export", Some(&*folder.join("export")))] {
        expect(folder, command, 2, "the store is damaged");
    }
    assert!(!folder.join("export").exists());
}

#[test]
fn clients_ahead_of_an_import_are_told_that_they_do_not_recover_and_get_what_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let [old, new] = ["old", "new"].map(|name| folder.path().join(name));
    fs::create_dir(&new).unwrap();
    let (first, begun) = filled(&old);
    let export = folder.path().join("export");
    expect(&old, ("export", Some(&export)), 0, "exported");
    // Clients see two more publications than the export has.
    for nth in 4..=5 {
        assert_eq!(publish(&first, "a", nth, "")["offset"], nth);
    }
    kill(first);
    expect(&new, ("import", Some(&export)), 0, "imported 1 streams, 3 publications, 1 idempotency");
    expect(&new, CHECK, 0, "no damage was found\n");

    let second = server(&new, &[]);
    let (kept, epoch) = history(&second, "a");
    assert_eq!(kept, [(1, json!(1)), (2, json!(2)), (3, json!(3))]);
    assert_ne!(epoch, begun);
    assert_eq!(publish(&second, "a", 1, "key"), json!({"offset": 1, "epoch": epoch}), "the key");
    let cases = [(5, &begun, false), (2, &begun, false), (9, &epoch, false), (2, &epoch, true)];
    let mut clients = cases.map(|(offset, known, recovers)| {
        let mut client = Client::connected(&second);
        let answer = subscribe(&mut client, "a", Some((offset, known)));
        let told = answer["recovered"] == json!(true);
        assert_eq!(told, recovers, "offset {offset} of {known}: {answer}");
        // An answer that recovers names the offset before the publications in it.
        let at = if recovers { offset } else { 3 };
        assert_eq!((&answer["epoch"], &answer["offset"]), (&json!(epoch), &json!(at)), "{answer}");
        let missed = answer["publications"].as_array().map_or(0, Vec::len);
        assert_eq!(missed, usize::from(recovers), "{answer}");
        client
    });
    for offset in 4..=6 {
        let data = 100 + offset;
        assert_eq!(publish(&second, "a", data, ""), json!({"offset": offset, "epoch": epoch}));
        for client in &mut clients {
            let push: Value = serde_json::from_str(&client.text()).unwrap();
            let publication = &push["push"]["pub"];
            assert_eq!(
                (&publication["offset"], &publication["data"]),
                (&json!(offset), &json!(data))
            );
        }
    }
    let (kept, _) = history(&second, "a");
    assert_eq!(kept.last().unwrap(), &(6, json!(106)));
}
