//! `elkfk top`: the lag of a cluster in a terminal, as it changes.

mod app;
mod view;

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use elkfk_broker_client::lag::{Meter, Snapshot, Tracker};
use elkfk_broker_client::{Client, Config};
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::sync::mpsc;

use crate::args::Top;
use crate::signals;
use app::{App, Then};

/// A cluster that does not answer for this long is told as such; the figures stay.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Keys that wait to be looked at; more are lost, as they are when a key is held down.
const KEYS_MAX: usize = 64;
/// How often the thread of the keys looks whether it is still wanted.
const KEY_PATIENCE: Duration = Duration::from_millis(100);

pub(crate) async fn run(args: Top) -> Result<()> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        bail!("top needs a terminal; `elkfk lag --watch` prints the same figures line by line");
    }
    let (measured, mut measurements) = mpsc::channel(1);
    let meter = tokio::spawn(measure(args.bootstrap_server.clone(), measured));
    let (typed, mut keys) = mpsc::channel(KEYS_MAX);
    std::thread::Builder::new()
        .name("keys".into())
        .spawn(move || read_keys(&typed))
        .context("start thread keys")?;
    // Brings the terminal back after a panic too.
    let mut terminal = ratatui::try_init().context("take over the terminal")?;
    let mut app = App::new(args.bootstrap_server);
    let mut stopped = std::pin::pin!(signals::asked_to_stop());
    let ended = loop {
        if let Err(error) = terminal.draw(|frame| view::draw(frame, &app)) {
            break Err(error).context("draw");
        }
        tokio::select! {
            () = &mut stopped => break Ok(()),
            Some(measured) = measurements.recv() => app.on_measured(measured),
            key = keys.recv() => match key {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    if app.on_key(key) == Then::End {
                        break Ok(());
                    }
                }
                // A resize only asks for another drawing.
                Some(_) => {}
                None => break Ok(()),
            },
        }
    };
    ratatui::restore();
    meter.abort();
    ended
}

async fn measure(bootstrap: String, measured: mpsc::Sender<Result<Snapshot, String>>) {
    let config = Config { timeout: TIMEOUT, ..Config::to(&bootstrap) };
    let mut meter = Meter::new(Client::new(config));
    let mut tracker = Tracker::default();
    loop {
        let answer = match meter.sample().await {
            Ok(sample) => Ok(tracker.step(sample)),
            Err(error) => Err(error.in_one_line()),
        };
        if measured.send(answer).await.is_err() {
            return;
        }
        tokio::time::sleep(meter.every()).await;
    }
}

/// Until nobody listens. Blocks: wants a thread of its own.
fn read_keys(typed: &mpsc::Sender<Event>) {
    while !typed.is_closed() {
        match event::poll(KEY_PATIENCE) {
            Ok(false) => {}
            Ok(true) => match event::read() {
                Ok(event) => drop(typed.try_send(event)),
                Err(_) => return,
            },
            // The terminal is gone.
            Err(_) => return,
        }
    }
}
