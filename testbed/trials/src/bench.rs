//! The uploader against other programs and against the ceiling, on the same server in the same run.
//!
//! Time counts at the server: from the first byte of a file to the last blob. Programs take turns, so that a slow moment of the machine
//! meets all of them.

mod ceiling;
mod programs;

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use blobferry_blob_server::{BlobServer, Event, Keep, Operation, Settings};

pub(crate) use self::programs::Program;
use crate::{CONTAINER, contents::fill, uploader::Usage};

/// Files of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    /// How many files of which size.
    pub(crate) files: Vec<(usize, u64)>,
}

impl Workload {
    /// What is measured.
    pub(crate) fn all() -> [Self; 3] {
        [
            Self { name: "1 x 1 GiB", files: vec![(1, 1 << 30)] },
            Self { name: "1,000 x 4 KiB", files: vec![(1000, 4 << 10)] },
            Self { name: "mixed", files: vec![(4, 128 << 20), (40, 4 << 20), (400, 64 << 10), (400, 1 << 10)] },
        ]
    }

    /// How many files.
    pub(crate) fn count(&self) -> usize {
        self.files.iter().map(|(count, _)| count).sum()
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|(count, size)| *count as u64 * size).sum()
    }

    /// Makes the files in a folder; their contents are all different.
    fn make(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        let sizes = self.files.iter().flat_map(|(count, size)| std::iter::repeat_n(*size, *count));
        for (number, size) in (0_u64..).zip(sizes) {
            let mut file = File::create(folder.join(format!("{number}.dat")))?;
            let mut part = vec![0; 1 << 20];
            let mut offset = 0;
            while offset < size {
                let length = usize::try_from(size - offset).unwrap_or(usize::MAX).min(part.len());
                fill(number, offset, &mut part[..length]);
                file.write_all(&part[..length])?;
                offset += length as u64;
            }
        }
        Ok(())
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    /// From the first byte at the server to the last blob.
    pub(crate) seconds: f64,
    pub(crate) usage: Usage,
    pub(crate) requests: u64,
}

/// When the first byte of a file came and when the last blob was complete.
#[derive(Debug, Default)]
struct Span {
    first: Option<Instant>,
    last: Option<Instant>,
}

/// Medians of a program on a workload.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) workload: Workload,
    pub(crate) program: String,
    pub(crate) figure: Figure,
}

/// Measures every program on every workload.
pub(crate) fn run(programs: &[Program], folder: &Path, repeats: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for workload in Workload::all() {
        let mut figures: Vec<Vec<Figure>> = vec![Vec::new(); programs.len()];
        for _ in 0..repeats {
            for (program, figures) in programs.iter().zip(&mut figures) {
                let place = folder.join("run");
                let figure =
                    measure(program, &workload, &place).with_context(|| format!("{} on {}", program.name(), workload.name))?;
                figures.push(figure);
                std::fs::remove_dir_all(&place)?;
            }
        }
        for (program, mut figures) in programs.iter().zip(figures) {
            figures.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
            rows.push(Row { workload: workload.clone(), program: program.name(), figure: figures[figures.len() / 2] });
        }
    }
    Ok(rows)
}

fn measure(program: &Program, workload: &Workload, place: &Path) -> Result<Figure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let span = Arc::new(Mutex::new(Span::default()));
    let watching = Arc::clone(&span);
    let observer = move |event: Event<'_>| {
        let mut span = watching.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Arrived(record) if matches!(record.operation, Some(Operation::PutBlob | Operation::PutBlock)) => {
                span.first.get_or_insert_with(Instant::now);
            }
            Event::Applied(_, Some(_)) => span.last = Some(Instant::now()),
            _ => {}
        }
    };
    let settings =
        Settings { keep: Keep::Checksums, keeps_records: false, observer: Some(Arc::new(observer)), ..Settings::default() };
    let server = runtime.block_on(BlobServer::start(settings))?;
    server.create_container(CONTAINER);
    workload.make(&Program::source(place))?;
    let usage = program.upload(place, &server, || server.names(CONTAINER).len() >= workload.count())?;
    let totals = server.totals();
    ensure!(totals.received >= workload.bytes(), "only {} bytes arrived", totals.received);
    let span = span.lock().unwrap_or_else(PoisonError::into_inner);
    let seconds = span.last.zip(span.first).map(|(last, first)| last.duration_since(first));
    Ok(Figure { seconds: seconds.unwrap_or(Duration::ZERO).as_secs_f64(), usage, requests: totals.count() })
}
