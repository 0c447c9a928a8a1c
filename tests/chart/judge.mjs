// Judges custom resources by the schemas of the Prometheus operator and of Istio, which are in the folder
// that the argument names. Standard input: a JSON list of objects. Standard output: a JSON list of what is
// wrong.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const packages = [
  [/^monitoring\.coreos\.com\//, "prometheus-operator"],
  [/\.istio\.io\//, "istio"],
];
const wrong = [];
for (const found of JSON.parse(readFileSync(0, "utf8"))) {
  const { apiVersion, kind, metadata } = found;
  try {
    const [, name] = packages.find(([group]) => group.test(apiVersion));
    const path = `node_modules/@kubernetes-models/${name}/${apiVersion}/${kind}.js`;
    const models = await import(pathToFileURL(`${process.argv[2]}/${path}`));
    new models[kind](found).validate();
  } catch (error) {
    wrong.push(`${kind} ${metadata.name}: ${error.message}`);
  }
}
console.log(JSON.stringify(wrong));
