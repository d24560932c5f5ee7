"use strict";
// Reads clauses as sgvl/policies/brief.py does, and labels as sgvl/policies/policy.py does, without
// Python. tests/test_browser.py compares the two over random policies.

const LONGEST = 2000;  // characters

/** Return the policy that the clauses of a text spell, or the problems with them.
    `words` has `concepts` (the category of each) and `places`. */
function readPolicy(text, words) {
  if ([...text].length > LONGEST) return { problems: [`Keep a policy under ${LONGEST} characters.`] };
  const known = new Set([...Object.keys(words.concepts), ...Object.values(words.concepts)]);
  const rules = new Map(), defaults = [], problems = [];
  for (const clause of clausesOf(text)) {
    const match = /^(.+?) (prohibited|permitted)(?: except (.+))?$/.exec(clause);
    if (!match) {
      problems.push(`“${clause}” is no clause; write “weapons prohibited except museum, news”.`);
    } else if (match[1] === "all else") {
      defaults.push(match[2]);
      if (match[3]) problems.push(`“${clause}”: the rest knows no exceptions; name a category.`);
    } else {
      const rule = { text: clause, status: match[2], except: listed(match[3] ?? "") };
      const tags = listed(match[1]);
      if (!tags.length) problems.push(`“${clause}” names nothing.`);
      for (const tag of tags) {
        const meant = [...known].find(word => stem(word) === stem(tag));
        if (!known.has(tag))
          problems.push(`“${tag}” is none of the words below${meant ? `: write “${meant}”` : ""}.`);
        if (rules.has(tag)) problems.push(`“${tag}” stands twice; keep one.`);
        rules.set(tag, rule);
      }
      for (const place of rule.except)
        if (!words.places.includes(place)) problems.push(`“${place}” is no place.`);
    }
  }
  if (defaults.length !== 1) problems.push("Say once what holds for the rest: “all else permitted”.");
  return { rules, rest: defaults[0], problems: [...new Set(problems)] };
}

/** Return the exact label of a scene, given by its tags, and the rule that fired. */
function labelOf(policy, tags, words) {
  const place = tags.find(tag => words.places.includes(tag));
  const permitting = [];
  for (const thing of tags.filter(tag => tag !== place)) {
    const rule = policy.rules.get(thing) ?? policy.rules.get(words.concepts[thing]);
    const excepted = rule?.except.includes(place);
    const prohibited = rule ? (rule.status === "prohibited") !== excepted : policy.rest === "prohibited";
    if (prohibited) return { label: "unsafe", rule: rule?.text ?? theRest(policy) };
    if (rule) permitting.push(rule.text);
  }
  return { label: "safe", rule: permitting[0] ?? theRest(policy) };
}

// The same for "knife" and "knives", "weapon" and "weapons".
const stem = word => word.replace(/(ies|ves|es|s|y|fe|e)$/, "");
const theRest = policy => `Whatever no rule mentions is ${policy.rest}.`;
const listed = names => names.split(",").map(name => name.trim()).filter(Boolean);
const clausesOf = text => text.split(/[;\n]/)
  .map(part => part.toLowerCase().trim().replace(/\s+/g, " ").replace(/^[ .]+|[ .]+$/g, ""))
  .filter(Boolean);
