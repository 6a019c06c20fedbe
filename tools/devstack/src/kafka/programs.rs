//! The programs of a broker: a JRE, Kafka's jars, and a class archive that halves its start time.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::{folders, progress};

const POM: &str = include_str!("../../pom.xml");
const OLDEST_JAVA: u32 = 17;
const HINT: &str = "install one (Debian 12: apt-get install openjdk-17-jre-headless) \
    or set REEL_KAFKA and REEL_POSTGRES";
/// Flags of the JVM: little memory, as brokers run only for minutes.
const FLAGS: [&str; 6] = [
    "-Xms64m",
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config.AbstractConfig=warn",
];

/// The JIT compiler of the JVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Jit {
    /// Only the first tier, for a start within seconds.
    Quick,
    /// All tiers, for benchmarks.
    Full,
}

pub(super) struct Programs {
    pub(super) java: PathBuf,
    pub(super) jars: PathBuf,
    /// The class archive for this JVM and these jars; missing until the first start makes it.
    pub(super) archive: PathBuf,
}

impl Programs {
    pub(super) async fn find() -> Result<Self> {
        let (java, version) = java().await?;
        let folder = folders::cache()?.join(format!("kafka-{}", folders::short_hash(POM)));
        fs::create_dir_all(&folder)?;
        let jars = folder.join("jars");
        folders::once(&jars, fetch).await?;
        let archive = folder
            .join(format!("{}.jsa", folders::short_hash(&format!("{} {version}", java.display()))));
        Ok(Self { java, jars, archive })
    }

    /// The arguments of `java` to run one of Kafka's classes.
    pub(super) fn args(&self, jit: Jit, archive_flag: String, class: &str) -> Vec<OsString> {
        let mut args: Vec<OsString> = FLAGS.into_iter().map(Into::into).collect();
        if jit == Jit::Quick {
            args.push("-XX:TieredStopAtLevel=1".into());
        }
        args.push(archive_flag.into());
        // Not a wildcard: a class archive fits only a class path with the same order.
        args.extend(["-cp".into(), self.class_path(), class.into()]);
        args
    }

    pub(super) fn use_archive(&self) -> String {
        format!("-XX:SharedArchiveFile={}", self.archive.display())
    }

    fn class_path(&self) -> OsString {
        let mut jars: Vec<_> = fs::read_dir(&self.jars)
            .into_iter()
            .flatten()
            .flatten()
            .map(|jar| jar.path())
            .collect();
        jars.sort();
        env::join_paths(jars).unwrap_or_default()
    }
}

/// Downloads Kafka's jars into a folder.
async fn fetch(jars: PathBuf) -> Result<()> {
    progress("downloading Kafka's jars with mvn (once, 45 MB)");
    fs::create_dir_all(&jars)?;
    let pom = jars.join("pom.xml");
    fs::write(&pom, POM)?;

    let mut mvn = Command::new("mvn");
    mvn.args(["-q", "-B", "dependency:copy-dependencies", "-f"]).arg(&pom);
    mvn.arg(format!("-DoutputDirectory={}", jars.display()));
    let output = mvn
        .output()
        .await
        .context("cannot run mvn: install Maven (Debian: apt-get install maven)")?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        bail!("mvn cannot download Kafka's jars: {}", String::from_utf8_lossy(&text).trim());
    }
    Ok(fs::remove_file(pom)?)
}

/// The `java` of `JAVA_HOME`, or else of the PATH, with the output of `java -version`.
async fn java() -> Result<(PathBuf, String)> {
    let home = env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
    let java = home.filter(|java| java.exists()).unwrap_or_else(|| "java".into());
    let output = Command::new(&java).arg("-version").output().await;
    let Ok(output) = output else {
        bail!("found no java; {OLDEST_JAVA} or newer is needed: {HINT}")
    };

    // openjdk version "17.0.15" 2025-04-15
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let version = text.split('"').nth(1).unwrap_or_default();
    let major = version.split(['.', '-', '+']).next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < OLDEST_JAVA) {
        bail!(
            "java {version} ({}) is too old; {OLDEST_JAVA} or newer is needed: {HINT}",
            java.display()
        );
    }

    Ok((java, text))
}
