//! A pipeline compiled from its files: the filters to run, the inputs and outputs to start.
//!
//! Pure: events in, events out. No socket, no clock but the one an event brings.

use std::{path::PathBuf, sync::Arc};

use elkfk_base::{Mistake, Mistakes};

use crate::{
    config::{self, Config, Env, Plugin, Predicate, Statement},
    event::Event,
    filter::{self, Common, Context, Filter, Surroundings, Verdict},
};

/// A compiled pipeline. Cheap to clone; shared by threads.
#[derive(Debug, Clone)]
pub struct Pipeline {
    compiled: Arc<Compiled>,
}

#[derive(Debug)]
struct Compiled {
    inputs: Vec<Plugin>,
    filters: Vec<Step<Box<FilterStep>>>,
    outputs: Vec<Plugin>,
    /// The routes to outputs, by index.
    routes: Vec<Step<usize>>,
    /// Whether every event goes to every output.
    is_unconditional: bool,
}

#[derive(Debug)]
struct FilterStep {
    filter: Box<dyn Filter>,
    common: Common,
}

/// A plugin or a choice between lists of them.
#[derive(Debug)]
enum Step<P> {
    Plugin(P),
    Branch { arms: Vec<(Predicate, Vec<Step<P>>)>, otherwise: Vec<Step<P>> },
}

/// What became of an event.
#[derive(Debug)]
pub enum Outcome {
    Keep(Event),
    /// A `drop` took it: acknowledged and forgotten.
    Drop,
}

impl Pipeline {
    /// Reads and compiles files; a directory stands for its `*.conf` files.
    ///
    /// # Errors
    /// Every mistake found, each with its place.
    pub fn load(files: &[PathBuf], env: Env<'_>) -> Result<Self, Mistakes> {
        Self::compile(&config::read_files(files, env)?, env)
    }

    /// Compiles one text; `file` names it in mistakes.
    pub fn parse(file: &str, text: &str, env: Env<'_>) -> Result<Self, Mistakes> {
        let (mut config, mut mistakes) = (Config::default(), Mistakes::default());
        config::parse_file(file, text, env, &mut config, &mut mistakes);
        match Self::compile(&config, env) {
            Ok(pipeline) => mistakes.or(pipeline),
            Err(more) => {
                mistakes.0.extend(more.0);
                Err(mistakes)
            }
        }
    }

    fn compile(config: &Config, env: Env<'_>) -> Result<Self, Mistakes> {
        let mut mistakes = Mistakes::default();
        let surroundings = Surroundings::new(env);
        let filters = steps(&config.filters, &mut mistakes, &mut |plugin, mistakes| {
            filter::compile(plugin, &surroundings, mistakes)
                .map(|(filter, common)| Box::new(FilterStep { filter, common }))
        });
        let mut inputs = Vec::new();
        for statement in &config.inputs {
            match statement {
                Statement::Plugin(plugin) => inputs.push(plugin.clone()),
                Statement::Branch(_) => mistakes.push(first_place(statement).map_or_else(
                    || Mistake::new("", 0, 0, "an if among inputs; inputs take no conditions"),
                    |place| place.mistake("an if among inputs; inputs take no conditions"),
                )),
            }
        }
        let mut outputs = Vec::new();
        let routes = steps(&config.outputs, &mut mistakes, &mut |plugin, _| {
            outputs.push(plugin.clone());
            Some(outputs.len() - 1)
        });
        let is_unconditional = routes.iter().all(|step| matches!(step, Step::Plugin(_)));
        let compiled = Compiled { inputs, filters, outputs, routes, is_unconditional };
        mistakes.or(Self { compiled: Arc::new(compiled) })
    }

    /// The inputs in the order written.
    pub fn inputs(&self) -> &[Plugin] {
        &self.compiled.inputs
    }

    /// The outputs in the order written, those within branches too.
    pub fn outputs(&self) -> &[Plugin] {
        &self.compiled.outputs
    }

    /// Runs the filters over one event.
    pub fn filter(&self, mut event: Event, context: &mut Context) -> Outcome {
        if run(&self.compiled.filters, &mut event, context) {
            Outcome::Keep(event)
        } else {
            Outcome::Drop
        }
    }

    /// Calls `each` with the index of every output that the event goes to.
    pub fn route(&self, event: &Event, mut each: impl FnMut(usize)) {
        if self.compiled.is_unconditional {
            (0..self.compiled.outputs.len()).for_each(each);
        } else {
            route(&self.compiled.routes, event, &mut each);
        }
    }
}

/// False when the event was dropped.
fn run(steps: &[Step<Box<FilterStep>>], event: &mut Event, context: &mut Context) -> bool {
    for step in steps {
        match step {
            Step::Plugin(step) => match step.filter.apply(event, context) {
                Verdict::Matched => step.common.apply(event),
                Verdict::Unmatched => {}
                Verdict::Cancelled => return false,
            },
            Step::Branch { arms, otherwise } => {
                let arm = arms.iter().find(|(predicate, _)| predicate.holds(event));
                if !run(arm.map_or(otherwise, |(_, steps)| steps), event, context) {
                    return false;
                }
            }
        }
    }
    true
}

fn route(steps: &[Step<usize>], event: &Event, each: &mut impl FnMut(usize)) {
    for step in steps {
        match step {
            Step::Plugin(output) => each(*output),
            Step::Branch { arms, otherwise } => {
                let arm = arms.iter().find(|(predicate, _)| predicate.holds(event));
                route(arm.map_or(otherwise, |(_, steps)| steps), event, each);
            }
        }
    }
}

/// Compiles statements; plugins that fail are left out, their mistakes noted.
fn steps<P>(
    statements: &[Statement],
    mistakes: &mut Mistakes,
    compile: &mut dyn FnMut(&Plugin, &mut Mistakes) -> Option<P>,
) -> Vec<Step<P>> {
    let mut compiled = Vec::with_capacity(statements.len());
    for statement in statements {
        match statement {
            Statement::Plugin(plugin) => {
                compiled.extend(compile(plugin, mistakes).map(Step::Plugin));
            }
            Statement::Branch(branch) => {
                let mut arms = Vec::with_capacity(branch.arms.len());
                for (condition, inner) in &branch.arms {
                    let predicate = Predicate::compile(condition, mistakes);
                    arms.push((predicate, steps(inner, mistakes, compile)));
                }
                let otherwise = steps(&branch.otherwise, mistakes, compile);
                compiled.push(Step::Branch { arms, otherwise });
            }
        }
    }
    compiled
}

fn first_place(statement: &Statement) -> Option<&config::Place> {
    match statement {
        Statement::Plugin(plugin) => Some(&plugin.place),
        Statement::Branch(branch) => branch
            .arms
            .iter()
            .flat_map(|(_, statements)| statements)
            .chain(&branch.otherwise)
            .find_map(first_place),
    }
}

/// Whether the files make a pipeline.
///
/// # Errors
/// Every mistake found, each with its place.
pub fn check(files: &[PathBuf], env: Env<'_>) -> Result<(), Mistakes> {
    Pipeline::load(files, env).map(drop)
}
