//! How many steps an expression takes, at most, for lists of given lengths. Pure.
//!
//! CEL always ends, and three comprehensions inside each other over a list of packages end after hours. So an expression is
//! counted before it runs: by lengths that are usual when it is loaded, and by the lengths that are there when a host has more.

use std::collections::BTreeMap;

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, operators};

/// Steps of one evaluation, at most, so that it ends well within a second: the costliest that is allowed took less than that in an
/// unoptimised build on an idle machine.
pub const STEPS: u64 = 500_000;
/// Items that a list of a fact is taken to have when an expression is loaded.
pub const USUAL_ITEMS: u64 = 1000;

/// Returns the steps of `expr`, at most. `items` gives the length of the list at a path, such as `patch_level.pending`.
pub fn steps(expr: &IdedExpr, items: &dyn Fn(&str) -> u64) -> u64 {
    Count { items }.value(expr, &BTreeMap::new()).steps
}

/// What is known of a value.
#[derive(Clone, Default)]
struct Counted {
    /// Steps to get it.
    steps: u64,
    /// Its items, when it is a list.
    items: u64,
    /// Where in the facts or parameters it is.
    path: Option<String>,
    /// The longest of its items, when it is a list that the expression makes.
    item: Option<Box<Counted>>,
}

struct Count<'a> {
    items: &'a dyn Fn(&str) -> u64,
}

/// Names that comprehensions bind.
type Scope = BTreeMap<String, Counted>;

impl Count<'_> {
    fn value(&self, expr: &IdedExpr, scope: &Scope) -> Counted {
        match &expr.expr {
            Expr::Ident(name) => match scope.get(name) {
                Some(bound) => Counted { steps: 1, ..bound.clone() },
                None => self.at(name.clone(), 1),
            },
            Expr::Select(select) => {
                let operand = self.value(&select.operand, scope);
                let steps = operand.steps.saturating_add(1);
                match operand.path {
                    Some(path) => self.at(format!("{path}.{}", select.field), steps),
                    None => Counted { steps, items: operand.items, ..Counted::default() },
                }
            }
            Expr::Call(call) => self.call(call, scope),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, scope),
            Expr::List(list) => {
                let elements: Vec<Counted> = list.elements.iter().map(|element| self.value(element, scope)).collect();
                let steps = sum(elements.iter().map(|element| element.steps)).saturating_add(1);
                let item = elements.into_iter().max_by_key(|element| element.items).map(Box::new);
                Counted { steps, items: list.elements.len() as u64, path: None, item }
            }
            Expr::Map(map) => {
                let entries = map.entries.iter().map(|entry| match &entry.expr {
                    EntryExpr::MapEntry(entry) => {
                        self.value(&entry.key, scope).steps.saturating_add(self.value(&entry.value, scope).steps)
                    }
                    EntryExpr::StructField(_) => 0,
                });
                let steps = sum(entries).saturating_add(1);
                Counted { steps, items: map.entries.len() as u64, ..Counted::default() }
            }
            Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => Counted { steps: 1, ..Counted::default() },
        }
    }

    fn at(&self, path: String, steps: u64) -> Counted {
        Counted { steps, items: (self.items)(&path), path: Some(path), item: None }
    }

    /// Returns the longest item of a list. Where it cannot be told, it is taken to be as long as the list.
    fn item_of(&self, list: &Counted) -> Counted {
        match (&list.item, &list.path) {
            (Some(item), _) => Counted { steps: 1, ..(**item).clone() },
            (None, Some(path)) => self.at(format!("{path}[]"), 1),
            (None, None) => Counted { steps: 1, items: list.items, ..Counted::default() },
        }
    }

    fn call(&self, call: &CallExpr, scope: &Scope) -> Counted {
        let operands: Vec<Counted> =
            call.target.as_deref().into_iter().chain(&call.args).map(|operand| self.value(operand, scope)).collect();
        let all_items = sum(operands.iter().map(|operand| operand.items));
        let most_items = operands.iter().map(|operand| operand.items).max().unwrap_or_default();
        let longest = || {
            let lists = operands.iter().filter(|operand| operand.items > 0);
            lists.map(|list| self.item_of(list)).max_by_key(|item| item.items).map(Box::new)
        };
        let (work, items) = match call.func_name.as_str() {
            // Each looks at, or copies, every item.
            operators::IN | operators::EQUALS | operators::NOT_EQUALS => (all_items, 0),
            operators::ADD => (all_items, all_items),
            operators::INDEX => (0, operands.first().map_or(0, |list| self.item_of(list).items)),
            "size" | operators::LOGICAL_AND | operators::LOGICAL_OR | operators::LOGICAL_NOT => (0, 0),
            operators::CONDITIONAL => (0, most_items),
            _ => (all_items, most_items),
        };
        let steps = sum(operands.iter().map(|operand| operand.steps)).saturating_add(work).saturating_add(1);
        let item = if items > 0 { longest() } else { None };
        Counted { steps, items, path: None, item }
    }

    fn comprehension(&self, comprehension: &ComprehensionExpr, scope: &Scope) -> Counted {
        let range = self.value(&comprehension.iter_range, scope);
        let init = self.value(&comprehension.accu_init, scope);
        let mut inner = scope.clone();
        inner.insert(comprehension.iter_var.clone(), self.item_of(&range));
        // What a comprehension gathers is not copied from round to round.
        inner.insert(comprehension.accu_var.clone(), Counted { steps: 1, ..Counted::default() });
        let round = [&comprehension.loop_cond, &comprehension.loop_step].map(|part| self.value(part, &inner).steps);
        let rounds = sum(round.into_iter()).saturating_add(2).saturating_mul(range.items);
        let result = self.value(&comprehension.result, &inner).steps;
        let steps = [range.steps, init.steps, rounds, result];
        let item = appended(comprehension).map(|item| Box::new(self.value(item, &inner)));
        // One that gathers nothing says yes or no.
        let items = if item.is_some() { range.items } else { 0 };
        Counted { steps: sum(steps.into_iter()), items, path: None, item }
    }
}

/// Returns what each round of a comprehension appends to what it gathers: `map` does so always, `filter` under a condition.
fn appended(comprehension: &ComprehensionExpr) -> Option<&IdedExpr> {
    let Expr::Call(step) = &comprehension.loop_step.expr else { return None };
    let step = match (step.func_name.as_str(), step.args.as_slice()) {
        (operators::CONDITIONAL, [_, taken, _]) => match &taken.expr {
            Expr::Call(step) => step,
            _ => return None,
        },
        _ => step,
    };
    match (step.func_name.as_str(), step.args.as_slice()) {
        (operators::ADD, [_, item]) => match &item.expr {
            Expr::List(list) => list.elements.first(),
            _ => None,
        },
        _ => None,
    }
}

fn sum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}
