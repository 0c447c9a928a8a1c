// Judges PodMonitors by the Prometheus operator's schema, which is in the folder that the argument names.
// Standard input: a JSON list of objects. Standard output: a JSON list of what is wrong.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const path = "node_modules/@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor.js";
const { PodMonitor } = await import(pathToFileURL(`${process.argv[2]}/${path}`));
const wrong = [];
for (const found of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    new PodMonitor(found).validate();
  } catch (error) {
    wrong.push(`PodMonitor ${found.metadata.name}: ${error.message}`);
  }
}
console.log(JSON.stringify(wrong));
