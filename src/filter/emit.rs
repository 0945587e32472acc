//! From a graph of tests to instructions of classic BPF.

use std::rc::Rc;

use super::FilterError;
use super::graph::{Goal, Graph, Node};
use super::opcode as op;
use super::syntax::{ArithOp, Width};
use super::tree::{Compare, Test, Value};
use crate::sys::bpf::{BpfInsn, MAX_INSTRUCTIONS};

/// Cells of scratch memory (`BPF_MEMWORDS`).
const CELLS: u32 = 16;

/// A program that accepts `bytes` of the packets that the graph accepts.
pub(super) fn emit(graph: &Graph, bytes: u32) -> Result<Vec<BpfInsn>, FilterError> {
    let bodies = Bodies::of(graph)?;
    let lens: Vec<usize> = bodies.0.iter().map(Vec::len).collect();
    let jumps = Jumps::settle(graph, &lens);
    let mut program = Vec::new();
    for (at, (node, body)) in graph.nodes.iter().zip(bodies.0).enumerate() {
        program.extend(body);
        jumps.emit(&mut program, at, node);
    }
    let mut ends = Vec::new();
    for (goal, value) in [(Goal::Accept, bytes), (Goal::Reject, 0)] {
        if goal == graph.start || graph.nodes.iter().any(|node| node.yes == goal || node.no == goal)
        {
            ends.push(BpfInsn { code: op::RET | op::K, jt: 0, jf: 0, k: value });
        }
    }
    program.extend(ends);
    match program.len() <= MAX_INSTRUCTIONS {
        true => Ok(program),
        false => Err(FilterError::whole(format!(
            "a program of {} instructions: the kernel takes {MAX_INSTRUCTIONS}",
            program.len()
        ))),
    }
}

/// What the registers hold, as far as that is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Registers {
    a: Option<Rc<Value>>,
    x: Option<Rc<Value>>,
}

/// The loads before each test.
struct Bodies(Vec<Vec<BpfInsn>>);

impl Bodies {
    fn of(graph: &Graph) -> Result<Self, FilterError> {
        let mut before: Vec<Option<Registers>> = vec![None; graph.nodes.len()];
        let mut bodies = Vec::with_capacity(graph.nodes.len());
        for (at, node) in graph.nodes.iter().enumerate() {
            let registers = before[at].take().unwrap_or_default();
            let mut body = Body { code: Vec::new(), registers, cells: 0 };
            body.prepare(&node.test)?;
            for goal in [node.yes, node.no] {
                let Goal::Node(next) = goal else { continue };
                match &mut before[next] {
                    Some(others) => {
                        // Only what both ways have brought.
                        if others.a != body.registers.a {
                            others.a = None;
                        }
                        if others.x != body.registers.x {
                            others.x = None;
                        }
                    }
                    empty => *empty = Some(body.registers.clone()),
                }
            }
            bodies.push(body.code);
        }
        Ok(Self(bodies))
    }
}

struct Body {
    code: Vec<BpfInsn>,
    registers: Registers,
    /// Cells in use.
    cells: u32,
}

impl Body {
    fn push(&mut self, code: u16, k: u32) {
        self.code.push(BpfInsn { code, jt: 0, jf: 0, k });
    }

    /// Brings a test's values to where its jump compares them.
    fn prepare(&mut self, test: &Test) -> Result<(), FilterError> {
        if test.right.number().is_some() {
            return self.load_a(&test.left);
        }
        self.operands(&test.left, &test.right)
    }

    /// The left one in A, the right one in X.
    fn operands(&mut self, left: &Rc<Value>, right: &Rc<Value>) -> Result<(), FilterError> {
        if matches!(**right, Value::HeaderLen(_)) && !left.needs_x() {
            self.load_a(left)?;
            return self.load_x(right);
        }
        let cell = self.cell()?;
        self.load_a(right)?;
        self.push(op::ST, cell);
        self.load_a(left)?;
        self.push(op::LDX | op::MEM, cell);
        self.registers.x = Some(Rc::clone(right));
        self.cells -= 1;
        Ok(())
    }

    fn cell(&mut self) -> Result<u32, FilterError> {
        if self.cells == CELLS {
            return Err(FilterError::whole(
                "arithmetic that takes no more than 16 intermediate results",
            ));
        }
        self.cells += 1;
        Ok(self.cells - 1)
    }

    fn load_a(&mut self, value: &Rc<Value>) -> Result<(), FilterError> {
        if self.registers.a.as_ref() == Some(value) {
            return Ok(());
        }
        match &**value {
            Value::Number(number) => self.push(op::LD | op::IMM, *number),
            Value::At(width, offset) => self.push(op::LD | op::ABS | size(*width), *offset),
            Value::Len => self.push(op::LD | op::LEN, 0),
            Value::HeaderLen(offset) => {
                self.push(op::LD | op::ABS | op::B, *offset);
                self.push(op::ALU | op::AND | op::K, 0xf);
                self.push(op::ALU | op::LSH | op::K, 2);
            }
            Value::Beyond(width, base, offset) => {
                self.load_x(base)?;
                self.push(op::LD | op::IND | size(*width), *offset);
            }
            Value::Negated(inner) => {
                self.load_a(inner)?;
                self.push(op::ALU | op::NEG, 0);
            }
            Value::Op(operator, left, right) => match right.number() {
                Some(number) => {
                    self.load_a(left)?;
                    self.push(op::ALU | alu(*operator) | op::K, number);
                }
                None => {
                    self.operands(left, right)?;
                    self.push(op::ALU | alu(*operator) | op::X, 0);
                }
            },
        }
        self.registers.a = Some(Rc::clone(value));
        Ok(())
    }

    fn load_x(&mut self, value: &Rc<Value>) -> Result<(), FilterError> {
        if self.registers.x.as_ref() == Some(value) {
            return Ok(());
        }
        match &**value {
            Value::Number(number) => self.push(op::LDX | op::IMM, *number),
            Value::HeaderLen(offset) => self.push(op::LDX | op::MSH | op::B, *offset),
            _ => {
                self.load_a(value)?;
                self.push(op::MISC | op::TAX, 0);
            }
        }
        self.registers.x = Some(Rc::clone(value));
        Ok(())
    }
}

impl Value {
    /// Whether loading it into A takes X.
    fn needs_x(&self) -> bool {
        match self {
            Self::Beyond(..) => true,
            Self::Op(_, left, right) => left.needs_x() || right.number().is_none(),
            Self::Negated(inner) => inner.needs_x(),
            _ => false,
        }
    }
}

fn size(width: Width) -> u16 {
    match width {
        Width::Byte => op::B,
        Width::Half => op::H,
        Width::Word => op::W,
    }
}

fn alu(operator: ArithOp) -> u16 {
    match operator {
        ArithOp::Add => op::ADD,
        ArithOp::Sub => op::SUB,
        ArithOp::Mul => op::MUL,
        ArithOp::Div => op::DIV,
        ArithOp::Rem => op::MOD,
        ArithOp::And => op::AND,
        ArithOp::Or => op::OR,
        ArithOp::Xor => op::XOR,
        ArithOp::Shl => op::LSH,
        ArithOp::Shr => op::RSH,
    }
}

/// Which tests reach their goals by a jump of their own: a conditional one goes no further than 255.
struct Jumps {
    /// Where each node begins, and behind them the two ends.
    starts: Vec<usize>,
    lens: Vec<usize>,
    far: Vec<(bool, bool)>,
    accept: usize,
    reject: usize,
}

impl Jumps {
    fn settle(graph: &Graph, lens: &[usize]) -> Self {
        let mut far = vec![(false, false); graph.nodes.len()];
        loop {
            let mut starts = Vec::with_capacity(lens.len());
            let mut end = 0;
            for (len, far) in lens.iter().zip(&far) {
                starts.push(end);
                end += len + 1 + usize::from(far.0) + usize::from(far.1);
            }
            let has_accept =
                graph.nodes.iter().any(|node| node.yes == Goal::Accept || node.no == Goal::Accept);
            let (accept, reject) = (end, end + usize::from(has_accept));
            let jumps = Self { starts, lens: lens.to_vec(), far: far.clone(), accept, reject };
            let mut has_changed = false;
            for (at, node) in graph.nodes.iter().enumerate() {
                let jump = jumps.starts[at] + lens[at];
                let is_far = |goal| jumps.place(goal) - jump - 1 > 255;
                if !far[at].0 && is_far(node.yes) {
                    far[at].0 = true;
                    has_changed = true;
                }
                if !far[at].1 && is_far(node.no) {
                    far[at].1 = true;
                    has_changed = true;
                }
            }
            if !has_changed {
                return jumps;
            }
        }
    }

    fn place(&self, goal: Goal) -> usize {
        match goal {
            Goal::Node(at) => self.starts[at],
            Goal::Accept => self.accept,
            Goal::Reject => self.reject,
        }
    }

    fn emit(&self, program: &mut Vec<BpfInsn>, at: usize, node: &Node) {
        let jump = self.starts[at] + self.lens[at];
        let (far_yes, far_no) = self.far[at];
        // The jumps of their own stand right behind: first that of `yes`.
        let (yes_at, no_at) = (jump + 1, jump + 1 + usize::from(far_yes));
        let near = |goal| (self.place(goal) - jump - 1) as u8;
        let jt = if far_yes { 0 } else { near(node.yes) };
        let jf = if far_no { (no_at - jump - 1) as u8 } else { near(node.no) };
        let compare = match node.test.compare {
            Compare::Equal => op::JEQ,
            Compare::Greater => op::JGT,
            Compare::AtLeast => op::JGE,
            Compare::Set => op::JSET,
        };
        let (source, k) = match node.test.right.number() {
            Some(number) => (op::K, number),
            None => (op::X, 0),
        };
        program.push(BpfInsn { code: op::JMP | compare | source, jt, jf, k });
        for (is_far, at, goal) in [(far_yes, yes_at, node.yes), (far_no, no_at, node.no)] {
            if is_far {
                let k = (self.place(goal) - at - 1) as u32;
                program.push(BpfInsn { code: op::JMP | op::JA, jt: 0, jf: 0, k });
            }
        }
    }
}
