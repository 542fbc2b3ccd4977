package main

import (
	"encoding/json"
	"strings"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
)

// An event is kept as the core API has it. The newer API calls some of its fields by other names; that is all that
// sets the two apart.
var coreNames = map[string]string{
	"regarding":                "involvedObject",
	"note":                     "message",
	"reportingController":      "reportingComponent",
	"deprecatedCount":          "count",
	"deprecatedFirstTimestamp": "firstTimestamp",
	"deprecatedLastTimestamp":  "lastTimestamp",
	"deprecatedSource":         "source",
}

func addEvents(scheme *runtime.Scheme) {
	newer := schema.GroupVersion{Group: eventsv1.GroupName, Version: runtime.APIVersionInternal}
	scheme.AddKnownTypes(newer, &corev1.Event{}, &corev1.EventList{})
	newerNames := map[string]string{}
	for ours, theirs := range coreNames {
		newerNames[theirs] = ours
	}
	between := func(names map[string]string) conversion.ConversionFunc {
		return func(from, to any, _ conversion.Scope) error { return rename(from, to, names) }
	}
	for _, pair := range [][2]any{
		{(*eventsv1.Event)(nil), (*corev1.Event)(nil)},
		{(*eventsv1.EventList)(nil), (*corev1.EventList)(nil)},
	} {
		utilruntime.Must(scheme.AddConversionFunc(pair[0], pair[1], between(coreNames)))
		utilruntime.Must(scheme.AddConversionFunc(pair[1], pair[0], between(newerNames)))
	}
	utilruntime.Must(scheme.AddFieldLabelConversionFunc(eventsv1.SchemeGroupVersion.WithKind("Event"),
		func(label, value string) (string, string, error) {
			first, rest, _ := strings.Cut(label, ".")
			if core, other := coreNames[first]; other {
				label = strings.TrimSuffix(core+"."+rest, ".")
			}
			return label, value, nil
		}))
}

// rename makes an event, or a list of them, of the other API by way of its JSON.
func rename(from, to any, names map[string]string) error {
	text, err := json.Marshal(from)
	if err != nil {
		return err
	}
	var object map[string]any
	if err := json.Unmarshal(text, &object); err != nil {
		return err
	}
	if items, list := object["items"].([]any); list {
		for i := range items {
			if item, ok := items[i].(map[string]any); ok {
				items[i] = renamed(item, names)
			}
		}
	} else {
		object = renamed(object, names)
	}
	if text, err = json.Marshal(object); err != nil {
		return err
	}
	return json.Unmarshal(text, to)
}

func renamed(object map[string]any, names map[string]string) map[string]any {
	result := make(map[string]any, len(object))
	for name, value := range object {
		if other, ok := names[name]; ok {
			name = other
		}
		result[name] = value
	}
	return result
}

func eventFields(object runtime.Object) fields.Set {
	event := object.(*corev1.Event)
	about := event.InvolvedObject
	return fields.Set{
		"involvedObject.apiVersion": about.APIVersion,
		"involvedObject.kind":       about.Kind,
		"involvedObject.namespace":  about.Namespace,
		"involvedObject.name":       about.Name,
		"involvedObject.uid":        string(about.UID),
		"involvedObject.fieldPath":  about.FieldPath,
		"reason":                    event.Reason,
		"reportingComponent":        event.ReportingController,
		"source":                    event.Source.Component,
		"type":                      event.Type,
	}
}
