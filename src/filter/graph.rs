//! A condition as a graph of tests. Each test leads to one of two further tests, or to an end.

use std::collections::HashMap;
use std::rc::Rc;

use super::tree::{Compare, Condition, Test};
use crate::error::FilterError;
use crate::insn::MAX_INSTRUCTIONS;

/// The largest graph that is optimized. Some tests turn out to be unnecessary, but not enough to fit a larger
/// graph into a program.
const MAX_TESTS: usize = 4 * MAX_INSTRUCTIONS;

/// Tests that a round leads edges past without a limit for the single edge: more than an ordinary filter needs.
const FREE_STEPS: usize = 1 << 17;
/// Tests that an edge is led past in one round, once the round has taken [`FREE_STEPS`]. The next round goes on from there;
/// by then the edges of the tests in between have moved as far. A long row of such tests thus takes a few rounds, not a time
/// that grows with the square of its length.
const MAX_STEPS: usize = 64;

/// The place that a test leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Goal {
    Accept,
    Reject,
    /// A test, by its number.
    Node(usize),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Node {
    pub(super) test: Rc<Test>,
    pub(super) yes: Goal,
    pub(super) no: Goal,
}

/// Tests in topological order: each before the ones it leads to.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) start: Goal,
}

impl Graph {
    /// # Errors
    /// Fails if there are far more tests than a program has room for, because the later passes take longer the
    /// more tests there are.
    pub(super) fn new(condition: &Condition) -> Result<Self, FilterError> {
        let mut builder = Builder::default();
        let start = builder.build(condition, Goal::Accept, Goal::Reject);
        if builder.nodes.len() > MAX_TESTS {
            let why = format!(
                "no program of {} tests and more: the kernel takes {MAX_INSTRUCTIONS} instructions",
                builder.nodes.len()
            );
            return Err(FilterError::whole(why));
        }
        let mut graph = Self { nodes: builder.nodes, start };
        graph.sort();
        while graph.thread() {
            graph.sort();
        }
        Ok(graph)
    }

    /// Whether any edge leads to this end.
    pub(super) fn leads_to(&self, end: Goal) -> bool {
        end == self.start || self.nodes.iter().any(|node| node.yes == end || node.no == end)
    }

    /// Redirects each edge past the tests whose outcome is known there. Returns whether any edge changed.
    fn thread(&mut self) -> bool {
        let mut known: Vec<Option<Facts>> = vec![None; self.nodes.len()];
        if let Goal::Node(start) = self.start {
            known[start] = Some(Facts::default());
        }
        let (mut has_changed, mut steps) = (false, 0);
        for at in 0..self.nodes.len() {
            let facts = known[at].take().unwrap_or_default();
            for outcome in [true, false] {
                let mut facts = facts.clone();
                facts.learn(&self.nodes[at].test, outcome);
                let before = if outcome { self.nodes[at].yes } else { self.nodes[at].no };
                let goal = self.beyond_known(before, &facts, &mut steps);
                has_changed |= goal != before;
                *(if outcome { &mut self.nodes[at].yes } else { &mut self.nodes[at].no }) = goal;
                if let Goal::Node(next) = goal {
                    match &mut known[next] {
                        Some(others) => others.keep(&facts),
                        empty => *empty = Some(facts),
                    }
                }
            }
        }
        has_changed
    }

    /// The place that is reached from `goal`, past tests whose outcome is known, of which it counts the `steps`.
    fn beyond_known(&self, mut goal: Goal, facts: &Facts, steps: &mut usize) -> Goal {
        let most = if *steps < FREE_STEPS { usize::MAX } else { *steps + MAX_STEPS };
        while *steps < most {
            let Goal::Node(next) = goal else { break };
            let node = &self.nodes[next];
            *steps += 1;
            match facts.outcome(&node.test) {
                Some(outcome) => goal = if outcome { node.yes } else { node.no },
                None => break,
            }
        }
        goal
    }

    /// Puts every test before the ones it leads to, merges equal tests, and drops unreachable ones.
    fn sort(&mut self) {
        let mut builder = Builder::default();
        // In a builder, edges lead only from later numbers to earlier ones; in this graph it is the other way
        // round. So the last test is built first.
        let reached = self.reached();
        let mut moved = vec![Goal::Reject; self.nodes.len()];
        let to = |goal: Goal, moved: &[Goal]| match goal {
            Goal::Node(at) => moved[at],
            end => end,
        };
        for &at in reached.iter().rev() {
            let Node { test, yes, no } = &self.nodes[at];
            let (yes, no) = (to(*yes, &moved), to(*no, &moved));
            moved[at] = builder.node(Rc::clone(test), yes, no);
        }
        self.start = to(self.start, &moved);
        self.nodes = builder.nodes;
        self.renumber();
    }

    /// Tests reachable from the start, each before the ones it leads to.
    fn reached(&self) -> Vec<usize> {
        let mut order = Vec::new();
        let mut state = vec![0_u8; self.nodes.len()]; // not seen, in progress, done
        let mut stack: Vec<usize> = match self.start {
            Goal::Node(start) => vec![start],
            _ => Vec::new(),
        };
        while let Some(&at) = stack.last() {
            let pending = match state[at] {
                0 => {
                    state[at] = 1;
                    // The last test pushed is finished first and so comes later; a failed test then continues
                    // nearby.
                    [self.nodes[at].no, self.nodes[at].yes]
                }
                _ => {
                    stack.pop();
                    if state[at] == 1 {
                        state[at] = 2;
                        order.push(at);
                    }
                    continue;
                }
            };
            for goal in pending.into_iter().rev() {
                if let Goal::Node(next) = goal
                    && state[next] == 0
                {
                    stack.push(next);
                }
            }
        }
        order.reverse();
        order
    }

    fn renumber(&mut self) {
        let order = self.reached();
        let mut place = vec![0; self.nodes.len()];
        for (new, &old) in order.iter().enumerate() {
            place[old] = new;
        }
        let to = |goal: Goal| match goal {
            Goal::Node(at) => Goal::Node(place[at]),
            end => end,
        };
        let moved =
            |node: &Node| Node { test: Rc::clone(&node.test), yes: to(node.yes), no: to(node.no) };
        self.nodes = order.iter().map(|&at| moved(&self.nodes[at])).collect();
        self.start = to(self.start);
    }
}

/// Builds nodes from the end to the start, and each distinct node only once.
#[derive(Default)]
struct Builder {
    nodes: Vec<Node>,
    known: HashMap<Node, usize>,
}

impl Builder {
    fn build(&mut self, condition: &Condition, yes: Goal, no: Goal) -> Goal {
        match condition {
            Condition::True => yes,
            Condition::False => no,
            Condition::Not(inner) => self.build(inner, no, yes),
            Condition::Test(test) => self.node(Rc::new(test.clone()), yes, no),
            Condition::Choice(choice) => {
                let [test, then, otherwise] = &**choice;
                let (then, otherwise) = (self.build(then, yes, no), self.build(otherwise, yes, no));
                self.build(test, then, otherwise)
            }
            Condition::All(all) => all.iter().rev().fold(yes, |yes, one| self.build(one, yes, no)),
            Condition::Any(any) => any.iter().rev().fold(no, |no, one| self.build(one, yes, no)),
        }
    }

    fn node(&mut self, test: Rc<Test>, yes: Goal, no: Goal) -> Goal {
        if yes == no {
            return yes;
        }
        let node = Node { test, yes, no };
        if let Some(&at) = self.known.get(&node) {
            return Goal::Node(at);
        }
        if self.nodes.len() > MAX_TESTS {
            return no; // the graph is refused
        }
        self.nodes.push(node.clone());
        self.known.insert(node, self.nodes.len() - 1);
        Goal::Node(self.nodes.len() - 1)
    }
}

/// The known outcomes on the way to a test.
#[derive(Debug, Clone, Default)]
struct Facts(Vec<(Rc<Test>, bool)>);

/// Number of facts kept. The latest ones are the most useful.
const MEMORY: usize = 24;

impl Facts {
    fn learn(&mut self, test: &Rc<Test>, outcome: bool) {
        if self.0.len() == MEMORY {
            // A fact about what a value is tells more than a fact about what it is not, so forget the latter
            // first.
            let weakest =
                self.0.iter().position(|(test, is)| !is || test.compare != Compare::Equal);
            self.0.remove(weakest.unwrap_or(0));
        }
        self.0.push((Rc::clone(test), outcome));
    }

    fn outcome(&self, test: &Test) -> Option<bool> {
        self.0.iter().rev().find_map(|(known, outcome)| test.given(known, *outcome))
    }

    /// Keeps only the facts that also hold on the other path.
    fn keep(&mut self, other: &Self) {
        self.0.retain(|fact| other.0.contains(fact));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ast::Width;
    use crate::tree::Value;

    #[test]
    fn an_edge_of_a_round_that_has_done_much_is_led_past_few_tests() {
        let test = |at: u32| {
            let (left, right) = (Rc::new(Value::At(Width::Byte, at)), Rc::new(Value::Number(1)));
            Rc::new(Test { left, compare: Compare::Equal, right })
        };
        let node = |at: usize| Node { test: test(0), yes: Goal::Node(at + 1), no: Goal::Reject };
        let mut nodes: Vec<Node> = (0..200).map(node).collect();
        nodes.push(Node { test: test(1), yes: Goal::Accept, no: Goal::Reject });
        let graph = Graph { nodes, start: Goal::Node(0) };
        let mut facts = Facts::default();
        facts.learn(&test(0), true);
        let (mut few, mut many) = (0, FREE_STEPS);
        assert_eq!(graph.beyond_known(Goal::Node(1), &facts, &mut few), Goal::Node(200));
        assert_eq!(few, 200);
        let goal = graph.beyond_known(Goal::Node(1), &facts, &mut many);
        assert_eq!(goal, Goal::Node(1 + MAX_STEPS));
    }

    #[test]
    fn a_row_of_decided_tests_of_any_length_is_left_out() {
        let text = vec!["ip6 proto 5"; 4_000].join(" or ");
        let [long, short] = [&text, "ip6 proto 5"].map(|text| {
            let filter = crate::BpfFilter::parse(text).unwrap();
            filter.program(crate::FilterTarget::Offline).len()
        });
        assert_eq!(long, short);
    }
}
