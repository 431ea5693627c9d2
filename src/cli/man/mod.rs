//! `man`: a page for the program and for each of its commands.

pub(super) mod args;
mod sections;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::command_line::command;
use super::print;
use args::ManArgs;
use sections::PageSection;

/// Section of the manual: user commands.
const MANUAL_SECTION: &str = "1";

pub(super) fn run(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let pages = pages();
    match &args.output {
        Some(folder) => write_all(&pages, folder)?,
        None => {
            let page = pages.iter().find(|page| page.path == args.command);
            let names = || pages.iter().map(|page| page.path.join(" ")).filter(|name| !name.is_empty());
            let page = page.with_context(|| {
                let names: Vec<_> = names().collect();
                format!("no such command: {}; choose one of: {}", args.command.join(" "), names.join(", "))
            })?;
            print(&page.text()?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write_all(pages: &[Page], folder: &Path) -> anyhow::Result<()> {
    for page in pages {
        let path = folder.join(page.file_name());
        std::fs::write(&path, page.text()?).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// The page of a command.
#[derive(Debug)]
struct Page {
    /// The command; empty for the program.
    path: Vec<String>,
    command: Command,
}

/// All pages, the program's first.
fn pages() -> Vec<Page> {
    let mut root = command().disable_help_subcommand(true);
    root.build();
    let mut pages = Vec::new();
    collect(&root, Vec::new(), &mut pages);
    pages
}

fn collect(command: &Command, path: Vec<String>, pages: &mut Vec<Page>) {
    pages.push(Page { path: path.clone(), command: command.clone() });
    for command in command.get_subcommands() {
        let path = path.iter().cloned().chain([command.get_name().to_owned()]).collect();
        collect(command, path, pages);
    }
}

impl Page {
    fn name(&self) -> String {
        std::iter::once("clerk-exporter").chain(self.path.iter().map(String::as_str)).collect::<Vec<_>>().join("-")
    }

    fn file_name(&self) -> String {
        format!("{}.{MANUAL_SECTION}", self.name())
    }

    fn text(&self) -> anyhow::Result<String> {
        let source = format!("clerk-exporter {}", crate::metrics::build::VERSION);
        let man = Man::new(self.command.clone()).source(source).manual("User Commands");
        let mut page = Vec::new();
        man.render_title(&mut page)?;
        man.render_name_section(&mut page)?;
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
        if self.command.has_subcommands() {
            man.render_subcommands_section(&mut page)?;
        }
        let mut roff = Roff::new();
        for section in sections::of(self) {
            render(&mut roff, &section);
        }
        roff.to_writer(&mut page)?;
        Ok(String::from_utf8(page)?)
    }
}

fn render(roff: &mut Roff, section: &PageSection) {
    roff.control("SH", [section.title]);
    for (term, text) in &section.entries {
        if !term.is_empty() {
            roff.control("TP", []).text([bold(term)]);
        }
        roff.text([roman(text)]);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::process::{Command as Process, Stdio};

    use super::*;

    fn page(name: &str) -> String {
        let pages = pages();
        let page = pages.iter().find(|page| page.path.join(" ") == name).unwrap_or_else(|| panic!("no page {name:?}"));
        page.text().unwrap()
    }

    #[test]
    fn every_command_has_a_page() {
        let names: Vec<_> = pages().iter().map(Page::file_name).collect();
        for name in [
            "clerk-exporter.1",
            "clerk-exporter-demo.1",
            "clerk-exporter-analyze.1",
            "clerk-exporter-check.1",
            "clerk-exporter-simulate.1",
            "clerk-exporter-test.1",
            "clerk-exporter-users.1",
            "clerk-exporter-users-export.1",
            "clerk-exporter-users-get.1",
            "clerk-exporter-completions.1",
            "clerk-exporter-man.1",
        ] {
            assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
        }
        assert_eq!(names.len(), 11, "{names:?}");
    }

    #[test]
    fn pages_have_their_sections_and_all_flags() {
        for found in pages() {
            let (name, text) = (found.name(), found.text().unwrap());
            for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "\"EXIT STATUS\"", "ENVIRONMENT", "\"SEE ALSO\""] {
                assert!(text.contains(&format!("\n.SH {section}\n")), "{name}: {section}: {text}");
            }
            for flag in found.command.get_arguments().filter_map(clap::Arg::get_env) {
                let variable = flag.to_str().unwrap();
                let (_, environment) = text.split_once(".SH ENVIRONMENT").unwrap();
                assert!(environment.contains(variable), "{name}: {variable}");
            }
        }
        for (name, section) in [("", "SIGNALS"), ("", "FILES"), ("demo", "SIGNALS"), ("users export", "FILES")] {
            assert!(page(name).contains(&format!("\n.SH {section}\n")), "{name}: {section}");
        }
        assert!(page("users get").contains("\n.TP\n\\fB3\\fR\n") && !page("check").contains("\n.TP\n\\fB3\\fR\n"));
    }

    /// The names of variables in sources that read the environment.
    fn variables_of_sources() -> BTreeSet<String> {
        let sources = [
            include_str!("../../config/environment.rs"),
            include_str!("../environment.rs"),
            include_str!("../check/table.rs"),
            include_str!("../../../crates/clerk-client/src/transport/environment.rs"),
            include_str!("../../../crates/clerk-client/src/transport/proxies.rs"),
        ];
        let code = sources.iter().map(|source| source.split("#[cfg(test)]").next().unwrap());
        let texts = code.flat_map(|code| code.split('"').skip(1).step_by(2));
        let is_name = |text: &&str| {
            text.len() > 3 && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_') && *text != "VERDICT"
        };
        texts.filter(is_name).map(str::to_owned).collect()
    }

    #[test]
    fn environment_sections_name_every_variable_that_is_read() {
        let names = variables_of_sources();
        for known in ["CLERK_SECRET_KEY", "TOKIO_WORKER_THREADS", "STATE_DIRECTORY", "SSL_CERT_DIR", "HTTPS_PROXY"] {
            assert!(names.contains(known), "{names:?}");
        }
        let all: String = pages().iter().map(|page| page.text().unwrap()).collect();
        let columns = ["INSTANCE", "ENVIRONMENT", "HEADERS", "LIMIT", "LEFT", "RESET", "CLOCK", "LATENCY"];
        for name in names.iter().filter(|name| !columns.contains(&name.as_str())) {
            assert!(all.contains(name), "{name} is in no page");
        }
    }

    #[test]
    fn pages_render_without_warnings_where_groff_is_installed() {
        for found in pages() {
            let groff = Process::new("groff")
                .args(["-man", "-ww", "-z", "-Tutf8"])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            let Ok(mut groff) = groff else { return };
            std::io::Write::write_all(&mut groff.stdin.take().unwrap(), found.text().unwrap().as_bytes()).unwrap();
            let output = groff.wait_with_output().unwrap();
            let warnings = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && warnings.is_empty(), "{}: {warnings}", found.name());
        }
    }
}
