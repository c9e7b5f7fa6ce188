// Command argo compiles a pipeline as KFP's API server does when a run of it is created.
//
//	argo PACKAGE.yaml [PARAMETERS.json]
//
// It prints the Argo Workflow as JSON. PACKAGE.yaml is what KFP's SDK compiles: the pipeline spec, and in a second YAML
// document the platform spec if there is one. What the backend refuses ends with exit code 1 and the reason on stderr.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/kubeflow/pipelines/api/v2alpha1/go/pipelinespec"
	"github.com/kubeflow/pipelines/backend/src/v2/compiler/argocompiler"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

func main() {
	if len(os.Args) < 2 || len(os.Args) > 3 {
		fmt.Fprintln(os.Stderr, "usage: argo PACKAGE.yaml [PARAMETERS.json]")
		os.Exit(2)
	}
	if err := run(os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(out io.Writer, files []string) error {
	text, err := os.ReadFile(files[0])
	if err != nil {
		return err
	}
	documents, err := split(text)
	if err != nil {
		return err
	}
	job, err := jobOf(documents[0])
	if err != nil {
		return err
	}
	if len(files) == 2 {
		if job.RuntimeConfig.ParameterValues, err = parameters(files[1]); err != nil {
			return err
		}
	}
	kubernetes, err := kubernetesOf(documents[1:])
	if err != nil {
		return err
	}
	workflow, err := argocompiler.Compile(job, kubernetes, nil)
	if err != nil {
		return fmt.Errorf("compile: %w", err)
	}
	return json.NewEncoder(out).Encode(workflow)
}

// split returns the YAML documents of a package as JSON: one or two.
func split(text []byte) ([][]byte, error) {
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	var documents [][]byte
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("package: %w", err)
		}
		asJSON, err := yaml.YAMLToJSONStrict(document)
		if err != nil {
			return nil, fmt.Errorf("package: %w", err)
		}
		documents = append(documents, asJSON)
	}
	if len(documents) < 1 || len(documents) > 2 {
		return nil, fmt.Errorf("package: expected one or two YAML documents (got %d)", len(documents))
	}
	return documents, nil
}

// parse reads a message and refuses fields that it does not have, as the API server does.
func parse(what string, document []byte, message proto.Message) error {
	if err := protojson.Unmarshal(document, message); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func jobOf(document []byte) (*pipelinespec.PipelineJob, error) {
	if err := parse("pipeline spec", document, &pipelinespec.PipelineSpec{}); err != nil {
		return nil, err
	}
	spec := &structpb.Struct{}
	if err := parse("pipeline spec", document, spec); err != nil {
		return nil, err
	}
	return &pipelinespec.PipelineJob{
		PipelineSpec:  spec,
		RuntimeConfig: &pipelinespec.PipelineJob_RuntimeConfig{},
	}, nil
}

func kubernetesOf(documents [][]byte) (*pipelinespec.SinglePlatformSpec, error) {
	if len(documents) == 0 {
		return nil, nil
	}
	platforms := &pipelinespec.PlatformSpec{}
	if err := parse("platform spec", documents[0], platforms); err != nil {
		return nil, err
	}
	kubernetes, found := platforms.GetPlatforms()["kubernetes"]
	if !found {
		return nil, errors.New("platform spec: names no kubernetes")
	}
	return kubernetes, nil
}

func parameters(path string) (map[string]*structpb.Value, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	given := &structpb.Struct{}
	if err := parse("parameters", text, given); err != nil {
		return nil, err
	}
	return given.GetFields(), nil
}
