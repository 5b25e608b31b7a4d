//! The texts of `--help`.

use std::process::Command;

fn print(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_drumline")).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn help_fits_a_screen_and_names_the_documentation_of_keys() {
    for flag in ["--help", "-h"] {
        let help = print(&[flag]);
        assert!(help.lines().count() <= 36, "{help}");
        for text in ["--config", "serve --help", "configdoc", "genconfig"] {
            assert!(help.contains(text), "{text} is missing in {help}");
        }
    }
}

#[test]
fn help_of_serve_lists_every_key_by_section() {
    let help = print(&["serve", "--help"]);
    let keys = print(&["configdoc"]);
    let keys = keys.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let mut count = 0;
    // Keys of a table in a list are not flags.
    for key in keys.filter(|key| !key.contains("[]")) {
        assert!(help.contains(&format!("--{key}")), "{key} is missing in {help}");
        count += 1;
    }
    assert!(count > 200, "{count} keys");
    for heading in ["http_server:\n", "client.token:\n", "channel.without_namespace:\n"] {
        assert!(help.contains(&format!("\n{heading}")), "{heading}");
    }
}
